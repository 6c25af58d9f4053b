"""Converts 4:2:0 frames to RGB and back, so that a pixel nobody changed is written as it was read.

FFmpeg's scaler makes frames darker by 1 of 255 on its fast path, and takes three times as long on its exact one. OpenCV's
matrix product (10 bits after the point) is within 1 and on average right. Each chroma value is repeated for its four pixels,
and is their mean on the way back. Frames of other kinds are left to the scaler.
"""

from __future__ import annotations

import functools
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from media.still import Picture

#: The share of red and blue in luma by a stream's tag: BT.709, BT.601 (625 and 525 lines), BT.2020 (ITU-T H.273, table 4).
BT709, BT601 = 1, 5
SHARES = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
UNKNOWN = 2
#: The 4:2:0 formats: 8 bits, no alpha. The second one always has full range.
FORMAT, FULL_FORMAT = "yuv420p", "yuvj420p"


def tag_of(frame: Any) -> int:
    """The frame's tag; for a video without one what players assume."""
    if frame.colorspace != UNKNOWN or frame.format.is_rgb:
        return int(frame.colorspace)
    return BT709 if frame.width >= 1280 or frame.height > 576 else BT601


def is_plain(frame: Any) -> bool:
    """Whether `to_rgb` converts this frame."""
    known = frame.format.name in (FORMAT, FULL_FORMAT) and tag_of(frame) in SHARES
    return known and all(plane.line_size > 0 for plane in frame.planes)


def to_rgb(frame: Any) -> Picture:
    """(height, width, 3) uint8 RGB of a frame that is plain."""
    luma, *chroma = (_samples(plane) for plane in frame.planes)
    height, width = luma.shape
    parts = cv2.merge([luma, *(_twice(part)[:height, :width] for part in chroma)])
    is_full = frame.format.name == FULL_FORMAT or frame.color_range == ColorRange.JPEG
    return np.asarray(cv2.transform(parts, _matrices(tag_of(frame), is_full)[1]), np.uint8)


def from_rgb(picture: Picture) -> Any:
    """A frame to encode, BT.709 in limited range; the picture's sides must be even."""
    height, width = picture.shape[:2]
    frame = av.VideoFrame(width, height, FORMAT)
    matrix, _ = _matrices(BT709, is_full=False)
    halved = cv2.transform(cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA), matrix)
    _samples(frame.planes[0])[:] = cv2.extractChannel(cv2.transform(picture, matrix), 0)
    for number in (1, 2):
        _samples(frame.planes[number])[:] = cv2.extractChannel(halved, number)
    frame.colorspace, frame.color_range = BT709, ColorRange.MPEG
    return frame


def _samples(plane: Any) -> NDArray[np.uint8]:
    """A plane's samples in place, (height, width); its lines may be padded."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _twice(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each sample four times; along a line by its product with 257, which is the same byte twice."""
    return np.multiply(part, 257, dtype=np.uint16).view(np.uint8).repeat(2, axis=0)


@functools.cache
def _matrices(tag: int, is_full: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From RGB to samples of luma and chroma, and back, (3, 4) each, the last column being added (H.273, §8.3)."""
    red, blue = SHARES[tag]
    luma = np.array([red, 1 - red - blue, blue])
    chroma = [(np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)]
    scale, offset = (np.ones(3), (0, 128, 128)) if is_full else (np.array([219, 224, 224]) / 255, (16, 128, 128))
    there = np.stack([luma, *chroma]) * scale[:, None]
    back = np.linalg.inv(there)
    return np.column_stack([there, offset]).astype(np.float32), np.column_stack([back, -back @ offset]).astype(np.float32)
