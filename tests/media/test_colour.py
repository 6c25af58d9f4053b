"""Colours against the formulas of ITU-T H.273, written out here: what is read is right, and what nobody changed is written as
it was read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from media import colour, video

#: The shares of red, green and blue in luma by the stream's tag.
LUMA = {1: (0.2126, 0.7152, 0.0722), 5: (0.299, 0.587, 0.114), 6: (0.299, 0.587, 0.114), 9: (0.2627, 0.678, 0.0593)}
COLOURS = [(200, 40, 40), (40, 180, 60), (30, 60, 200), (210, 170, 140), (20, 20, 20), (240, 240, 240)]


def codes(rgb: Any, tag: int, full: bool, bits: int = 8) -> NDArray[np.float64]:
    """Luma and chroma of RGB from 0 to 255, not rounded: (..., 3)."""
    red, green, blue = np.moveaxis(np.asarray(rgb, float) / 255, -1, 0)
    shares = LUMA[tag]
    luma = shares[0] * red + shares[1] * green + shares[2] * blue
    blueness, redness = (blue - luma) / (2 * (1 - shares[2])), (red - luma) / (2 * (1 - shares[0]))
    step = 1 << (bits - 8)
    if full:
        whole = 256 * step - 1
        return np.stack([whole * luma, whole * blueness + 128 * step, whole * redness + 128 * step], axis=-1)
    return np.stack([219 * luma + 16, 224 * blueness + 128, 224 * redness + 128], axis=-1) * step


def shown(planes: list[NDArray[np.uint8]], tag: int, full: bool) -> NDArray[np.float64]:
    """The other way: RGB from 0 to 255, from planes of one size."""
    luma, *chroma = (plane.astype(float) for plane in planes)
    luma = luma / 255 if full else (luma - 16) / 219
    blueness, redness = ((plane - 128) / (255 if full else 224) for plane in chroma)
    shares = LUMA[tag]
    red, blue = luma + 2 * (1 - shares[0]) * redness, luma + 2 * (1 - shares[2]) * blueness
    green = (luma - shares[0] * red - shares[2] * blue) / shares[1]
    return np.asarray(255 * np.stack([red, green, blue], axis=-1).clip(0, 1))


def frame_of(planes: list[NDArray[Any]], layout: str, tag: int, full: bool) -> Any:
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], layout)
    for plane, samples in zip(frame.planes, planes, strict=True):
        lines = np.frombuffer(plane, samples.dtype).reshape(plane.height, -1)
        lines[:, : samples.shape[1]] = samples
    frame.colorspace, frame.color_range = tag, 2 if full else 1
    return frame


def twice(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return plane.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


@pytest.mark.parametrize("tag", LUMA)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (67, 33)])
def test_a_frame_is_shown_as_the_formula_says(tag: int, full: bool, size: tuple[int, int]) -> None:
    width, height = size
    random = np.random.default_rng(0)
    sides = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
    planes = [random.integers(0, 256, each, np.uint8) for each in sides]
    frame = frame_of(planes, "yuv420p", tag, full)
    assert colour.is_plain(frame)
    expected = shown([planes[0], *(twice(plane, height, width) for plane in planes[1:])], tag, full)
    error = colour.to_rgb(frame) - expected
    assert np.abs(error).max() < 1
    assert np.abs(error.mean((0, 1))).max() < 0.1  # neither darker nor tinted


def test_a_picture_is_written_as_the_formula_says() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (34, 66, 3), np.uint8)
    frame = colour.from_rgb(picture)
    luma, *chroma = (colour._samples(plane) for plane in frame.planes)
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
    means = picture.reshape(17, 2, 33, 2, 3).mean((1, 3))
    halves = codes(means, 1, full=False)
    for written, exact in (
        (luma, codes(picture, 1, full=False)[..., 0]),
        *zip(chroma, np.moveaxis(halves, -1, 0)[1:], strict=True),
    ):
        assert np.abs(written - exact).max() < 1
        assert abs((written - exact).mean()) < 0.1


def test_what_nobody_changed_is_written_as_it_was_read() -> None:
    smooth = np.linspace(60, 190, 64 * 48 * 3).reshape(48, 64, 3)
    picture = (smooth + np.random.default_rng(0).integers(-40, 40, smooth.shape)).astype(np.uint8)
    before = colour.from_rgb(picture)
    after = colour.from_rgb(colour.to_rgb(before))
    for old, new in zip(before.planes, after.planes, strict=True):
        change = colour._samples(new).astype(int) - colour._samples(old)
        assert np.abs(change).max() <= 1
        assert np.abs(change).mean() < 0.05


@pytest.mark.parametrize(
    ("layout", "full", "tag"),
    [(layout, False, tag) for layout in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le") for tag in (1, 6)]
    + [("yuvj420p", True, 1), ("yuv420p", True, 6)],
)
def test_videos_of_any_layout_are_read_in_their_colours(tmp_path: Path, layout: str, full: bool, tag: int) -> None:
    bits = 10 if "10" in layout else 8
    kind = np.uint16 if bits > 8 else np.uint8
    picture = np.repeat(np.repeat(np.array([COLOURS]), 64, axis=0), 32, axis=1)
    planes = [np.rint(plane).astype(kind) for plane in np.moveaxis(codes(picture, tag, full, bits), -1, 0)]
    across, down = {"yuv444p": (1, 1), "yuv422p": (2, 1)}.get(layout, (2, 2))
    planes = [planes[0], *(plane[::down, ::across] for plane in planes[1:])]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(25), options={"crf": "1"})
        (stream.height, stream.width), stream.pix_fmt = picture.shape[:2], layout
        context = stream.codec_context
        context.colorspace, context.color_range = tag, 2 if full else 1
        frame = frame_of(planes, layout, tag, full)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    [read] = video.pictures(video.open_clip(path))
    assert np.abs(read[32, 16::32].astype(int) - COLOURS).max() <= 3
