"""The size of the video: the request rounded to what the model supports; and the image scaled to that size.

The model works on blocks of 32 x 32 pixels and four frames, plus the first frame. Sizes are rounded down to such a multiple and
reported in the metrics; sizes that cannot be made are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from errors import InvalidInput
from media.still import Picture

BLOCK = 32
#: Frames per second that the model was trained with.
RATE = 24
#: Sides in pixels; frames. The model was trained with 121 frames.
MIN_SIDE, MAX_SIDE = 64, 1536
MAX_FRAMES = 241
#: Blocks of 32 x 32 pixels and four frames in one video: twice those of 1280 x 704 x 121.
MAX_BLOCKS = 2 * 31 * 22 * 40

Fit = Literal["crop", "auto"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The video's size in pixels and frames."""

    width: int
    height: int
    frames: int

    @property
    def latents(self) -> tuple[int, int, int, int, int]:
        """(1, 48, t, h, w)."""
        return 1, 48, (self.frames - 1) // 4 + 1, self.height // 16, self.width // 16


def of(fields: dict[str, Any], fit: Fit, picture: Picture | None) -> Shape:
    """The shape for a job's `width`, `height`, `num_frames`. Raises InvalidInput, which names the field and its limits."""
    width, height, frames = (_whole(fields, name) for name in ("width", "height", "num_frames"))
    for name, value in (("width", width), ("height", height)):
        if not MIN_SIDE <= value <= MAX_SIDE:
            raise InvalidInput(f"{name}: got {value}, must be {MIN_SIDE} to {MAX_SIDE}", stage="validation")
    if not 1 <= frames <= MAX_FRAMES:
        raise InvalidInput(f"num_frames: got {frames}, must be 1 to {MAX_FRAMES} (121 is 5 s)", stage="validation")
    if fit == "auto" and picture is not None:
        width, height = nearest(picture.shape[1] / picture.shape[0], width * height)
    width, height = _down(width), _down(height)
    shape = Shape(width=width, height=height, frames=(frames - 1) // 4 * 4 + 1)
    blocks = shape.latents[2] * (width // BLOCK) * (height // BLOCK)
    if blocks > MAX_BLOCKS:
        most = MAX_BLOCKS // ((width // BLOCK) * (height // BLOCK)) * 4 - 3
        said = f"{width}x{height} with {shape.frames} frames is too large; at most {most} frames can be made at this size"
        raise InvalidInput(f"num_frames, width, height: {said}", stage="validation")
    return shape


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name}: got {value!r:.60}, must be an integer", stage="validation")
    return value


def _down(side: int) -> int:
    return side // BLOCK * BLOCK


def nearest(aspect: float, area: int) -> tuple[int, int]:
    """Width and height in whole blocks, at most `area` pixels, closest to an aspect ratio (width / height).

    Wan 2.2's rule: round one side down to a block, give the other the rest of the area; try it both ways.
    """
    most = _down(MAX_SIDE)
    tried = []
    for ratio, turned in ((1 / aspect, True), (aspect, False)):  # in a tie the height is rounded down
        first = min(max(_down(int((area * ratio) ** 0.5)), MIN_SIDE), most)
        other = min(max(_down(area // first), MIN_SIDE), most)
        first = min(first, _down(area // other))  # if the other side is already at its minimum
        tried.append((other, first) if turned else (first, other))
    return min(tried, key=lambda size: max(size[0] / size[1] / aspect, aspect * size[1] / size[0]))


def cover(picture: Picture, width: int, height: int) -> Picture:
    """The image scaled (Lanczos) to cover width x height, and cropped to its centre."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    left, top = max(0.0, picture.shape[1] * scale - width) / 2, max(0.0, picture.shape[0] * scale - height) / 2
    # only the crop is computed: an image a thousand times as wide as high would not fit in memory
    right, bottom = min((left + width) / scale, picture.shape[1]), min((top + height) / scale, picture.shape[0])
    box = (left / scale, top / scale, right, bottom)
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS, box=box))
