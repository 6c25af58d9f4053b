"""The output's size if the job chooses it: the whole picture with bars (pad), or the part that fills it (crop)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from errors import InvalidInput
from inference.engines.musetalk.params import Fit
from media import video
from media.still import Picture

#: The range that H.264 players can be expected to support.
MIN_PX, MAX_PX = 64, 4096


@dataclass(frozen=True)
class Shape:
    """The output is width x height. The source's rectangle (left, top, width, height), in pixels, is scaled to the rectangle
    `place` of the output; everything outside it is black."""

    width: int
    height: int
    part: tuple[int, int, int, int]
    place: tuple[int, int, int, int]
    pixel_aspect: Fraction = Fraction(1)

    def apply(self, picture: Picture) -> Picture:
        """The output frame for a source frame."""
        left, top, width, height = self.part
        x, y, wide, high = self.place
        cut = picture[top : top + height, left : left + width]
        if (wide, high) != (width, height):
            how = cv2.INTER_AREA if wide * high < width * height else cv2.INTER_CUBIC
            cut = np.asarray(cv2.resize(cut, (wide, high), interpolation=how), np.uint8)
        if (wide, high) == (self.width, self.height):
            return cut
        filled = np.zeros((self.height, self.width, 3), np.uint8)
        filled[y : y + high, x : x + wide] = cut
        return filled


def of(clip: video.Clip, fields: dict[str, Any], fit: Fit) -> Shape:
    """The output shape for this clip, from the job's aspect_ratio and resolution. Raises InvalidInput if they are invalid.

    The output has the aspect ratio and is as large as fits into the resolution; if the two agree, it is the resolution.
    """
    wanted = None if fit == "source" else _wanted(fields)
    if wanted is None:
        whole = (0, 0, clip.width, clip.height)
        return Shape(clip.width, clip.height, whole, whole, clip.pixel_aspect)
    width, height = wanted
    shown = clip.width * clip.pixel_aspect  # the display width, in square pixels
    if fit == "crop":
        scale = max(width / shown, Fraction(height, clip.height))
        part_width, part_height = _at_most(width / scale / clip.pixel_aspect, clip.width), _at_most(height / scale, clip.height)
        part = ((clip.width - part_width) // 2, (clip.height - part_height) // 2, part_width, part_height)
        return Shape(width, height, part, (0, 0, width, height))
    scale = min(width / shown, Fraction(height, clip.height))
    wide, high = _at_most(shown * scale, width), _at_most(clip.height * scale, height)
    return Shape(width, height, (0, 0, clip.width, clip.height), ((width - wide) // 2, (height - high) // 2, wide, high))


def _wanted(fields: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height, both even; None if the job sets neither."""
    size = _pair("resolution", fields.get("resolution"), r"(\d{1,5})x(\d{1,5})", "512x512")
    ratio = _pair("aspect_ratio", fields.get("aspect_ratio"), r"(\d{1,3}):(\d{1,3})", "1:1 or 9:16")
    if size is None:
        return None
    if not all(MIN_PX <= side <= MAX_PX for side in size):
        raise InvalidInput(
            f"resolution: got {size[0]}x{size[1]}, each side must be from {MIN_PX} to {MAX_PX} pixels", stage="validation"
        )
    width, height = Fraction(size[0]), Fraction(size[1])
    if ratio is not None:
        shape = Fraction(*ratio)
        width, height = min(width, height * shape), min(height, width / shape)
        if min(_even(width), _even(height)) < MIN_PX:
            got = f"got {ratio[0]}:{ratio[1]}, which in {size[0]}x{size[1]} makes {_even(width)}x{_even(height)}"
            raise InvalidInput(
                f"aspect_ratio: {got}, each side must be from {MIN_PX} to {MAX_PX} pixels; a larger resolution allows more",
                stage="validation",
            )
    return _even(width), _even(height)


def _pair(name: str, value: Any, pattern: str, like: str) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(pattern, str(value))
    if match is None or not int(match[1]) or not int(match[2]):
        raise InvalidInput(f"{name}: got {str(value)[:40]!r}, must look like {like}", stage="validation")
    return int(match[1]), int(match[2])


def _at_most(side: Fraction, most: int) -> int:
    return min(most, max(1, round(side)))


def _even(side: Fraction) -> int:
    return max(2, round(side / 2) * 2)
