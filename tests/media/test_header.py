"""An image's size is known from its first bytes, whatever comes after them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from media import header
from tests.media import files, pictures

KINDS = (".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif")


@pytest.mark.parametrize("extension", KINDS)
@pytest.mark.parametrize("size", [(80, 64), (33, 1000)])
def test_every_kind_of_image_tells_its_size(tmp_path: Path, extension: str, size: tuple[int, int]) -> None:
    path = tmp_path / "a"
    path.write_bytes(pictures.encoded(files.numbered(3, *size), extension))
    assert header.size(path) == size


def test_other_ways_of_writing_the_same_kinds(tmp_path: Path) -> None:
    picture = files.numbered(3, 80, 64)
    for extension, option, value in (
        (".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        (".webp", cv2.IMWRITE_WEBP_QUALITY, 101),  # lossless
    ):
        (tmp_path / "a").write_bytes(cv2.imencode(extension, picture, [option, value])[1].tobytes())
        assert header.size(tmp_path / "a") == (80, 64)
    (tmp_path / "a").write_bytes(pictures.lying_on_its_side(pictures.encoded(picture, ".jpg")))
    assert header.size(tmp_path / "a") == (80, 64)
    (tmp_path / "a").write_bytes(b"\xff\xd8" + b"\xff" * 5 + pictures.encoded(picture, ".jpg")[3:])  # fill bytes
    assert header.size(tmp_path / "a") == (80, 64)


def test_a_webp_that_moves_is_known_by_its_header(tmp_path: Path) -> None:
    moving = pictures.moving(tmp_path / "a.webp", "libwebp_anim", "yuv420p")
    assert (header.size(moving), header.is_animated_webp(moving)) == ((80, 64), True)
    (tmp_path / "b.webp").write_bytes(pictures.encoded(np.zeros((64, 80, 4), np.uint8), ".webp"))
    assert not header.is_animated_webp(tmp_path / "b.webp")


@pytest.mark.parametrize("extension", KINDS)
def test_a_header_that_ends_early_or_is_nonsense_has_no_size(tmp_path: Path, extension: str) -> None:
    whole = pictures.encoded(files.numbered(3, 80, 64), extension)
    for content in (*(whole[:length] for length in range(30)), whole[:8] + os.urandom(200)):
        (tmp_path / "a").write_bytes(content)
        header.size(tmp_path / "a")  # raises nothing


def test_what_is_no_image_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"<html>" * 100)
    assert header.size(tmp_path / "a") is None
    assert header.size(files.movie(tmp_path / "a.mp4")) is None
