"""Blends generated faces into frames: resized to their boxes and alpha-blended through their masks, in integer arithmetic.

The published pipeline resizes with OpenCV (bilinear, 11-bit weights) and blends with Pillow (a byte product divided by 255,
rounded). `paste` does that for one picture in numpy. `patches` is the same arithmetic for a batch in torch and gives the same
bytes on every device. Both touch only the masks' rectangles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.masks import Mask

#: Weights in OpenCV's bilinear resize are fractions of this.
WHOLE = 2048


def paste(picture: NDArray[np.uint8], face: NDArray[np.uint8], box: Box, mask: Mask) -> None:
    """Changes the picture (h, w, 3) in place. face: (256, 256, 3) uint8 of any size, in the picture's channel order.

    The mask must lie within the picture and the box, as `masks.begun` makes it; the box may extend beyond the picture.
    """
    picture[place(mask)] = _laid_on(picture[place(mask)], face, box, mask)


def _laid_on(part: NDArray[np.uint8], face: NDArray[np.uint8], box: Box, mask: Mask) -> NDArray[np.uint16]:
    """The new pixels of the mask's rectangle, from the old ones."""
    stretched = cv2.resize(np.ascontiguousarray(face), (box.width, box.height), interpolation=cv2.INTER_LINEAR)
    top, left = mask.y - box.y1, mask.x - box.x1
    height, width = mask.alpha.shape
    alpha = mask.alpha[..., None].astype(np.uint16)
    twice = part * (255 - alpha) + stretched[top : top + height, left : left + width] * alpha + 128
    laid: NDArray[np.uint16] = ((twice >> 8) + twice) >> 8
    return laid


def place(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns of a picture that a mask changes."""
    height, width = mask.alpha.shape
    return slice(mask.y, mask.y + height), slice(mask.x, mask.x + width)


@dataclass(frozen=True)
class Layout:
    """How a batch of n faces is placed in n pictures, on the device; all masks are zero-padded to one height h and width w.

    alpha: (n, h, w) uint8. rows: (n, 2, h) int64, the two rows of the face that a row of the mask lies between, with
    row_weights (n, 2, h) int32; likewise columns and column_weights.
    """

    boxes: tuple[Box, ...]
    masks: tuple[Mask, ...]
    alpha: torch.Tensor
    rows: torch.Tensor
    row_weights: torch.Tensor
    columns: torch.Tensor
    column_weights: torch.Tensor


def layout(
    boxes: Sequence[Box], masks: Sequence[Mask], device: Any, face_side: int = 256, least: tuple[int, int] = (1, 1)
) -> Layout:
    """What `patches` needs for a batch; it does not depend on the faces' pixels. least: the minimum h and w, so that all
    batches have one shape."""
    height = max(least[0], *(mask.alpha.shape[0] for mask in masks))
    width = max(least[1], *(mask.alpha.shape[1] for mask in masks))
    alpha = np.zeros((len(masks), height, width), np.uint8)
    for padded, mask in zip(alpha, masks, strict=True):
        padded[: mask.alpha.shape[0], : mask.alpha.shape[1]] = mask.alpha
    pairs = list(zip(boxes, masks, strict=True))
    down = [_between(face_side, box.height, mask.y - box.y1, height, at_ends=False) for box, mask in pairs]
    across = [_between(face_side, box.width, mask.x - box.x1, width, at_ends=True) for box, mask in pairs]
    tables = [np.stack(table) for way in (down, across) for table in zip(*way, strict=True)]
    return Layout(tuple(boxes), tuple(masks), *(card.sent(table, device) for table in (alpha, *tables)))


def patches(pictures: torch.Tensor, faces: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(n, h, w, 3) uint8: the new pixels of each mask's rectangle. pictures: the old ones in the same shape, any padding.

    faces: (n, 256, 256, 3) uint8. Uses OpenCV itself if they are in host memory.
    """
    if faces.device.type != "cpu":
        return counted(pictures, faces, layout)
    made = pictures.numpy().copy()
    for patch, face, box, mask in zip(made, faces.numpy(), layout.boxes, layout.masks, strict=True):
        part = patch[: mask.alpha.shape[0], : mask.alpha.shape[1]]
        part[:] = _laid_on(part, face, box, mask)
    return torch.from_numpy(made)


def counted(pictures: torch.Tensor, faces: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The same bytes as `patches`, on any device."""
    one = torch.arange(len(faces), device=faces.device).view(-1, 1, 1)
    left, right = layout.columns.unbind(1)  # (n, w) each
    left_weight, right_weight = (weight[:, None, :, None] for weight in layout.column_weights.unbind(1))
    stretched = torch.full((1,), 2, dtype=torch.int32, device=faces.device)
    for row, row_weight in zip(layout.rows.unbind(1), layout.row_weights.unbind(1), strict=True):
        at = row[:, :, None]
        line = faces[one, at, left[:, None]] * left_weight + faces[one, at, right[:, None]] * right_weight
        stretched = stretched + ((row_weight[:, :, None, None] * (line >> 4)) >> 16)
    alpha = layout.alpha[..., None].int()
    twice = pictures * (255 - alpha) + (stretched >> 2) * alpha + 128
    return (((twice >> 8) + twice) >> 8).to(torch.uint8)


def cut_out(pictures: Sequence[NDArray[np.uint8]], layout: Layout) -> NDArray[np.uint8]:
    """The pixels of the masks' rectangles, (n, h, w, 3) uint8, zero-padded."""
    parts = np.zeros((*layout.alpha.shape, 3), np.uint8)
    for part, picture, mask in zip(parts, pictures, layout.masks, strict=True):
        part[: mask.alpha.shape[0], : mask.alpha.shape[1]] = picture[place(mask)]
    return parts


def put_in(picture: Any, patch: Any, mask: Mask) -> None:
    """Writes a patch into the picture, in place; both numpy arrays or both tensors on one device."""
    height, width = mask.alpha.shape
    picture[place(mask)] = patch[:height, :width]


def _between(source: int, target: int, first: int, count: int, *, at_ends: bool) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The two source pixels and their weights, (2, count) each, for target pixels first … of `target`, as in OpenCV's bilinear
    resize. Horizontally it omits a pixel beyond the edge; vertically it repeats the last one instead (at_ends False)."""
    scale = 1.0 / (target / source)
    wanted = np.minimum(np.arange(first, first + count), target - 1)
    place_ = ((wanted + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(place_).astype(np.int64)
    share = (place_ - before.astype(np.float32)).astype(np.float32)
    if at_ends:
        share[(before < 0) | (before >= source - 1)] = 0
    weights = np.rint(np.stack([np.float32(1) - share, share]) * np.float32(WHOLE)).astype(np.int32)
    return np.clip(np.stack([before, before + 1]), 0, source - 1), weights
