"""Blending masks, one per source frame: where and how strongly the generated face covers the picture. Built from face parts,
dilated or eroded, and blurred.

Everything runs on its input's device. On every device the integers are the same that OpenCV and Pillow give the published
pipeline (its `face_parsing` and `blending`): dilation and erosion are ORs of shifted pictures, resizing and blurring are
integer sums. A mask is stored as the small rectangle that it changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card
from inference.engines.musetalk import resize
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.params import ParsingMode

#: The side of the parser's input and of its map.
SIDE = 512
MAP = Box(0, 0, SIDE, SIDE)
#: The normalisation of the parser's input (ImageNet's).
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: The parser's classes that are used.
SKIN, NOSE, MOUTH, UPPER_LIP, LOWER_LIP, NECK = 1, 10, 11, 12, 13, 14
LIPS = (MOUTH, UPPER_LIP, LOWER_LIP)

#: The square around a box has this many times its longer side.
EXPAND = 1.5
#: The blur's width as a fraction of that square: 0.05 in the published video script, 0.1 in its live script.
BLUR = 0.05
#: Nothing above the middle of the square is changed.
KEPT_ABOVE = 0.5

#: The shape that skin is dilated by: a cone from UP pixels below, narrowing to DOWN above, then a column; CONE: its half width.
UP, DOWN, CONE = 16, 6, 10
#: The cheeks are eroded twice by a cross of this half width and half height.
CHEEK_X, CHEEK_Y, CHEEK_TIMES = 17, 1, 2

#: OpenCV's blur kernels of up to nine pixels, in units of 1/256; wider ones are Gaussian.
SMALL_BLURS = {
    1: (256,),
    3: (64, 128, 64),
    5: (16, 64, 96, 64, 16),
    7: (8, 28, 56, 72, 56, 28, 8),
    9: (4, 13, 30, 51, 60, 51, 30, 13, 4),
}


@dataclass(frozen=True)
class Mask:
    """The part of a picture that changes. alpha: (h, w) uint8, 255 is fully generated; its top left pixel is (x, y)."""

    x: int
    y: int
    alpha: NDArray[np.uint8]


def square(box: Box, expand: float = EXPAND) -> Box:
    """The square around a box that the parser sees; it may extend beyond the picture."""
    x, y = (box.x1 + box.x2) // 2, (box.y1 + box.y2) // 2
    half = int(max(box.width, box.height) // 2 * expand)
    return Box(x - half, y - half, x + half, y + half)


def seen(pictures: Sequence[torch.Tensor], boxes: Sequence[Box], expand: float = EXPAND, *, exact: bool = True) -> torch.Tensor:
    """The parser's input: (n, 3, 512, 512) float32, from (h, w, 3) uint8 RGB and the box of each. Black beyond the edges.

    Not exact: with `resize.quick`.
    """
    squares = [_cropped(picture, square(box, expand)) for picture, box in zip(pictures, boxes, strict=True)]
    if exact:
        small = torch.stack([resize.pillow(part, SIDE, "bilinear") for part in squares]).permute(0, 3, 1, 2)
    else:
        small = torch.cat([resize.quick(part[None], SIDE, SIDE) for part in squares])
    mean, deviation = (resize.by_channel(three, SIDE, small.device) for three in (MEAN, DEVIATION))
    return small.float().div_(255).sub_(mean).div_(deviation)


def classes(scores: torch.Tensor) -> torch.Tensor:
    """(n, 19, h, w) to (n, h, w) uint8: the class of each pixel."""
    return scores.argmax(dim=1).to(torch.uint8)


def region(boxes: Sequence[Box]) -> Box:
    """The part of the map that any of these boxes' masks depends on; the other two thirds can be skipped.

    A mask is the box's own part of the square, from KEPT_ABOVE down. The bicubic filter reaches two pixels further (two of the
    square's if that is smaller than the map), and dilation and erosion look at a pixel's surroundings.
    """
    x1, y1, x2, y2 = zip(*(_own(box) for box in boxes), strict=True)
    across, rows = CONE + CHEEK_X * CHEEK_TIMES, CHEEK_Y * CHEEK_TIMES
    wanted = Box(min(x1) - across, min(y1) - DOWN - rows, max(x2) + across, max(y2) + UP + rows)
    return wanted.cut(SIDE, SIDE)


def _own(box: Box) -> tuple[int, int, int, int]:
    """The pixels of the map that the box's own part of the square is resized from."""
    around = square(box)
    scale = SIDE / max(1, around.width)
    reach = 2 * max(1.0, scale) + 1
    first = max(box.y1 - around.y1, int(around.width * KEPT_ABOVE))
    edges = (box.x1 - around.x1, first, box.x2 - around.x1, box.y2 - around.y1)
    left, top, right, bottom = (edge * scale for edge in edges)
    return math.floor(left - reach), math.floor(top - reach), math.ceil(right + reach), math.ceil(bottom + reach)


def parts(found: torch.Tensor, mode: ParsingMode, left_cheek: int = 90, right_cheek: int = 90, at: Box = MAP) -> torch.Tensor:
    """(n, 512, 512) bool: what may change at all, from the classes (n, h, w) uint8 of the map's part `at`; False elsewhere,
    and unreliable right next to it.

    raw: skin, lips and mouth. neck: the neck too. jaw: the skin is dilated, mostly upwards and little downwards so that the
    chin keeps its edge, and eroded again at the cheeks, beyond left_cheek and right_cheek from the middle.
    """
    wanted = _any_of(found, LIPS)
    if mode == "jaw":
        grown = _grown(found == SKIN)
        columns = torch.arange(at.x1, at.x2, device=found.device)
        cheek = (columns <= SIDE // 2 - left_cheek) | (columns >= SIDE // 2 + right_cheek)
        wanted |= torch.where(cheek, _shrunk(grown), grown) & (found != NOSE)
    else:
        wanted |= _any_of(found, (SKIN, NECK) if mode == "neck" else (SKIN,))
    return torch.nn.functional.pad(wanted, (at.x1, SIDE - at.x2, at.y1, SIDE - at.y2))


def begun(
    part: torch.Tensor, box: Box, width: int, height: int, expand: float = EXPAND, blur: float = BLUR
) -> tuple[int, int, torch.Tensor] | None:
    """The mask of one picture of this size, from its (512, 512) bool parts: its top left pixel and its alpha, not yet trimmed
    and possibly still being computed on the GPU. None if nothing would change.

    Only the box's own part of the square counts, and only its lower half. Then it is blurred, which carries it across these
    limits, and clipped to where something new is pasted: the box.
    """
    around = square(box, expand)
    side = around.width
    own = box.moved(-around.x1, -around.y1)  # from here on, coordinates are relative to the square
    kept = Box(own.x1, max(own.y1, int(side * KEPT_ABOVE)), own.x2, own.y2).cut(side, side)
    pasted = box.cut(width, height).moved(-around.x1, -around.y1).cut(side, side)
    if min(kept.width, kept.height, pasted.width, pasted.height) < 1:
        return None
    bytes_ = part.to(torch.uint8)[..., None] * 255
    hard = resize.pillow(bytes_, side, "bicubic", slice(kept.y1, kept.y2), slice(kept.x1, kept.x2))[..., 0]
    down = _blurring(side, blur, (pasted.y1, pasted.y2), (kept.y1, kept.y2), hard.device)
    across = _blurring(side, blur, (pasted.x1, pasted.x2), (kept.x1, kept.x2), hard.device)
    alpha = ((down @ hard.float() @ across.T + 2**15) / 2**16).to(torch.uint8)
    return around.x1 + pasted.x1, around.y1 + pasted.y1, alpha


def finished(mask: tuple[int, int, torch.Tensor] | None) -> Mask | None:
    """The finished mask; waits for it. None if nothing would change."""
    return mask and _trimmed(*mask[:2], mask[2].cpu().numpy())


def blur_width(side: int, share: float = BLUR) -> int:
    """The blur width in pixels for a square of this side; always odd."""
    return int(share * side // 2 * 2) + 1


@functools.lru_cache(maxsize=64)
def blur_weights(width: int) -> tuple[int, ...]:
    """The integer weights, 256 in total, of OpenCV's GaussianBlur on bytes when only the width is given.

    Sigma is 0.3 ((width - 1) / 2 - 1) + 0.8; each weight's rounding error is carried over to the next.
    """
    if width in SMALL_BLURS:
        return SMALL_BLURS[width]
    sigma = 0.3 * ((width - 1) * 0.5 - 1) + 0.8
    bell = np.exp(-((np.arange(width) - (width - 1) * 0.5) ** 2) / (2 * sigma**2))
    bell /= bell.sum()
    half, over = [], 0.0
    for share in bell[: width // 2]:
        half.append(round(float(share) * 256 + over))
        over += float(share) * 256 - half[-1]
    return (*half, 256 - 2 * sum(half), *half[::-1])


def _blurring(side: int, share: float, to: tuple[int, int], of: tuple[int, int], device: Any) -> torch.Tensor:
    """(pixels of `to`, pixels of `of`) float32: the blur along one side of the square as a matrix. Outside `of` is 0; outside
    the square is mirrored at the centre of its last pixel. Two such matrices turn bytes into integers below 2^24, which float32
    holds exactly."""
    weights = np.array(blur_weights(blur_width(side, share)))
    at = np.arange(*to)[:, None] + np.arange(len(weights)) - len(weights) // 2
    at = np.abs(at)
    at = np.where(at >= side, 2 * (side - 1) - at, at) - of[0]
    within = (at >= 0) & (at < of[1] - of[0])
    matrix = torch.zeros(to[1] - to[0], of[1] - of[0], device=device)
    where = card.sent(np.where(within, at, 0), device)
    return matrix.scatter_add_(1, where, card.sent(np.where(within, weights, 0).astype(np.float32), device))


def _grown(skin: torch.Tensor) -> torch.Tensor:
    """Every pixel with skin in the cone and column below it: row d of that shape, from DOWN above to UP below, is
    2 min(d + DOWN, CONE) + 1 wide. Dilating by a cone, then by a column, gives that shape."""
    height = skin.shape[1]
    padded = torch.nn.functional.pad(skin, (0, 0, DOWN, UP))
    cone = torch.zeros_like(padded[:, : height + UP + DOWN - CONE])
    for row in range(CONE + 1):
        cone |= _spread(padded[:, row : row + cone.shape[1]], 2, row, row)
    return _spread(cone, 1, 0, UP + DOWN - CONE)[:, :height]


def _shrunk(part: torch.Tensor) -> torch.Tensor:
    """Erosion by the cross; pixels beyond the map do not erode anything."""
    gone = ~part
    for _ in range(CHEEK_TIMES):
        gone = _spread(gone, 2, CHEEK_X, CHEEK_X) | _spread(gone, 1, CHEEK_Y, CHEEK_Y)
    return ~gone


def _spread(found: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """True wherever any pixel is set from `before` pixels before to `after` pixels after, along an axis of (n, h, w) bool."""
    sides = (before, after) if axis == 2 else (0, 0, before, after)
    spread, reached = torch.nn.functional.pad(found, sides), 1
    while reached < before + after + 1:
        step = min(reached, before + after + 1 - reached)
        count = spread.shape[axis] - step
        spread = spread.narrow(axis, 0, count) | spread.narrow(axis, step, count)
        reached += step
    return spread


def _any_of(found: torch.Tensor, wanted: tuple[int, ...]) -> torch.Tensor:
    return functools.reduce(torch.logical_or, [found == one for one in wanted])


def _cropped(picture: torch.Tensor, box: Box) -> torch.Tensor:
    height, width = picture.shape[:2]
    inside = box.cut(width, height)
    part = picture.new_zeros((max(box.height, 1), max(box.width, 1), 3))
    if inside.width > 0 and inside.height > 0:
        top, left = inside.y1 - box.y1, inside.x1 - box.x1
        part[top : top + inside.height, left : left + inside.width] = picture[inside.y1 : inside.y2, inside.x1 : inside.x2]
    return part


def _trimmed(x: int, y: int, alpha: NDArray[np.uint8]) -> Mask | None:
    """Without the empty rows and columns around it."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return None
    part = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Mask(x + int(columns[0]), y + int(rows[0]), np.ascontiguousarray(part))
