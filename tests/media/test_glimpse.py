"""Whoever waits for a video sees its newest frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from media import glimpse, still, write
from tests.media import files


def test_while_a_video_is_written_a_frame_of_it_lies_beside(tmp_path: Path) -> None:
    pictures = (files.numbered(number, 640, 360) for number in range(5))
    write.write(tmp_path / "a.mp4", pictures, rate=Fraction(25), speech=None)
    seen = still.read(glimpse.beside(tmp_path / "a.mp4"))
    assert max(seen.shape) == glimpse.SIDE_PX
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.mp4"]


def test_a_frame_has_its_own_colours_and_is_small(tmp_path: Path) -> None:
    picture = np.full((1080, 1920, 3), (200, 40, 40), np.uint8)
    glimpse.keep(picture, tmp_path / "a.mp4")
    seen = still.read(glimpse.beside(tmp_path / "a.mp4"))
    assert np.abs(seen.astype(int) - (200, 40, 40)).max() <= 6
    assert glimpse.beside(tmp_path / "a.mp4").stat().st_size < 64 * 1024


def test_a_frame_that_cannot_be_kept_costs_nothing(tmp_path: Path) -> None:
    glimpse.keep(files.numbered(1, 64, 48), tmp_path / "nowhere" / "a.mp4")
    assert not list(tmp_path.iterdir())
