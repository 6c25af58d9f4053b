"""High dynamic range as a usual screen shows it, in levels worked out by hand from ITU-R BT.2100 and BT.2408."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media import hdr, video

PQ, HLG, SDR = hdr.PQ, hdr.HLG, 1


def pq(nits: float) -> float:
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def screen(nits: float) -> float:
    """The byte of a screen whose white is 203 nit, where nothing is rolled off."""
    return float(255 * (nits / 203) ** (1 / 2.4))


def clip(path: Path, transfer: int, rgb: tuple[float, float, float]) -> Path:
    """A video of one colour, its codes (0 to 1) of BT.2020 in 10 bits, tagged."""
    red, green, blue = rgb
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    levels = (64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=Fraction(25), options={"x265-params": "log-level=none", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1
        for _ in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, level in zip(frame.planes, levels, strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(level), "<u2").tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seen(path: Path) -> list[int]:
    picture = next(iter(video.pictures(video.open_clip(path))))
    assert picture.dtype == np.uint8
    assert picture.shape == (64, 64, 3)
    return [int(level) for level in picture[32, 32]]


@pytest.mark.parametrize("nits", [1, 10, 50, 90])
def test_what_pq_says_in_nits_is_as_bright_beside_a_white_of_203(tmp_path: Path, nits: float) -> None:
    assert seen(clip(tmp_path / "a.mkv", PQ, (pq(nits),) * 3)) == pytest.approx([screen(nits)] * 3, abs=2)


@pytest.mark.parametrize(("nits", "least", "most"), [(203, 228, 234), (400, 244, 252), (1000, 254, 255), (4000, 254, 255)])
def test_white_is_nearly_white_and_what_is_brighter_is_told_apart(tmp_path: Path, nits: float, least: int, most: int) -> None:
    for level in seen(clip(tmp_path / "a.mkv", PQ, (pq(nits),) * 3)):
        assert least <= level <= most


@pytest.mark.parametrize(("code", "nits"), [(0.5, 1000 * (1 / 12) ** 1.2), (0.38, 1000 * (0.38**2 / 3) ** 1.2)])
def test_hlg_is_seen_as_on_a_display_of_1000_nit(tmp_path: Path, code: float, nits: float) -> None:
    assert seen(clip(tmp_path / "a.mkv", HLG, (code,) * 3)) == pytest.approx([screen(nits)] * 3, abs=2)


def test_hlgs_white_is_pqs(tmp_path: Path) -> None:
    white = seen(clip(tmp_path / "a.mkv", HLG, (0.75,) * 3))
    assert white == pytest.approx(seen(clip(tmp_path / "b.mkv", PQ, (pq(203),) * 3)), abs=2)


def test_a_colour_of_bt709_is_that_colour_again(tmp_path: Path) -> None:
    in_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]) @ (80, 20, 5)
    red, green, blue = (pq(float(nits)) for nits in in_bt2020)
    assert seen(clip(tmp_path / "a.mkv", PQ, (red, green, blue))) == pytest.approx([screen(80), screen(20), screen(5)], abs=4)


def test_black_is_black_and_a_usual_video_stays_as_it_is(tmp_path: Path) -> None:
    assert seen(clip(tmp_path / "a.mkv", PQ, (0.0,) * 3)) == [0, 0, 0]
    assert seen(clip(tmp_path / "b.mkv", SDR, (0.5,) * 3)) == pytest.approx([128] * 3, abs=2)


def test_all_levels_of_grey_are_there_and_in_order() -> None:
    ramp = np.repeat(np.arange(1 << 16, dtype=np.uint16).reshape(256, 256, 1), 3, axis=2)
    for transfer in (PQ, HLG):
        made = hdr.shown(ramp, transfer, 9).reshape(-1, 3)
        assert int(np.ptp(made.astype(int), axis=1).max()) <= 1
        assert (np.diff(made[:, 0].astype(int)) >= 0).all()
        assert len(np.unique(made[:, 0])) > 250
