"""DWPose pre- and post-processing: pictures in, 133 keypoints out, 68 of them on the face, in batches.

The arithmetic is that of mmpose 1.1 with the published configuration (top-down, one person per region, flip test, SimCC with
two bins per pixel, no refinement). The published pipeline's region is always the whole picture; with several people the network
decides whose face it finds. Here it can be told where to look, which also makes its steps finer.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card

#: The network's input size in pixels, and how much larger than the region its view is.
WIDTH, HEIGHT = 288, 384
PADDING = 1.25
#: The input normalisation: ImageNet's, for 0 to 255, RGB.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: Bins per pixel, on both axes.
BINS = 2.0
POINTS = 133

#: The 68 face points among the 133, numbered as in iBUG.
FACE = slice(23, 91)

#: Runs of face points, with the sum of a point's index and its mirrored index: jaw, brows, bridge of the nose, nostrils, eyes,
#: outer and inner lips.
_FACE_RUNS = (
    *((0, 16, 16), (17, 26, 43)),
    *((27, 27, 54), (28, 28, 56), (29, 29, 58), (30, 30, 60), (31, 35, 66)),
    *((36, 39, 81), (40, 41, 87), (42, 45, 81), (46, 47, 87)),
    *((48, 54, 102), (55, 59, 114), (60, 64, 124), (65, 67, 132)),
)
#: Point i of a picture is point MIRRORED[i] of the flipped picture: nose and body, feet, face, left hand, right hand.
MIRRORED = (
    *(0, *(at + (1 if at % 2 else -1) for at in range(1, 17))),
    *(20, 21, 22, 17, 18, 19),
    *(FACE.start + both - at for first, last, both in _FACE_RUNS for at in range(first, last + 1)),
    *(*range(112, 133), *range(91, 112)),
)

#: (n, 4) float: left, top, right, bottom in pixels of each picture.
Regions = NDArray[np.float64]
#: (n, 133, 576) and (n, 133, 768): each point's score per bin.
Scores = tuple[torch.Tensor, torch.Tensor]


def locate(
    network: Callable[[torch.Tensor], Scores],
    pictures: torch.Tensor,
    regions: Regions | None = None,
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.float64]:
    """(n, 133, 3): x and y in pixels of the picture, and the score, from (n, h, w, 3) uint8 RGB; flip test included."""
    regions = whole(pictures) if regions is None else regions
    seen = warp(pictures, regions).to(dtype)
    with torch.no_grad():
        across, down = network(torch.cat([seen, seen.flip(3)]))
    return decode(*with_mirrored(across.float(), down.float()), regions)


def whole(pictures: torch.Tensor) -> Regions:
    """Regions that cover the whole pictures."""
    count, height, width = pictures.shape[:3]
    return np.tile(np.array([0.0, 0.0, width, height]), (count, 1))


def warp(pictures: torch.Tensor, regions: Regions) -> torch.Tensor:
    """(n, 3, 384, 288) float32 normalised, from (n, h, w, 3) uint8 RGB: each region with padding around it, black beyond the
    picture; bilinear, rounded to bytes. With OpenCV, as published, if the pictures are in host memory."""
    seen = opencvs(pictures, regions) if pictures.device.type == "cpu" else interpolated(pictures, regions)
    mean, deviation = (card.sent(np.array(three, np.float32).reshape(3, 1, 1), seen.device) for three in (MEAN, DEVIATION))
    return seen.sub_(mean).div_(deviation)


def opencvs(pictures: torch.Tensor, regions: Regions) -> torch.Tensor:
    """(n, 3, 384, 288) float32, whole numbers: OpenCV's bilinear `warpAffine`, which counts in 1/32 pixel."""
    middle, size = _frames(regions)
    views = np.empty((len(pictures), HEIGHT, WIDTH, 3), np.uint8)
    for view, picture, corner, pixel in zip(views, pictures.numpy(), middle - size / 2, size / (WIDTH, HEIGHT), strict=True):
        matrix = np.column_stack([np.diag(pixel), corner])
        cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), dst=view, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return torch.from_numpy(views).permute(0, 3, 1, 2).float()


def interpolated(pictures: torch.Tensor, regions: Regions) -> torch.Tensor:
    """The same on any device, with exact weights: the bytes of a smooth picture differ by at most one."""
    middle, size = _frames(regions)
    count, height, width = pictures.shape[:3]
    columns, left_right = _between(np.arange(WIDTH), WIDTH, size[:, :1], middle[:, :1], width)
    rows, up_down = _between(np.arange(HEIGHT), HEIGHT, size[:, 1:], middle[:, 1:], height)
    first, stop = int(columns.min()), int(columns.max()) + 1  # only these columns are touched
    rows += np.arange(count)[:, None, None] * height  # the pictures stacked vertically
    tables = (columns - first, left_right, rows, up_down)
    across, across_weight, down, down_weight = (card.sent(table, pictures.device) for table in tables)
    lines = pictures[:, :, first:stop].flatten(0, 1)
    upper, lower = (
        lines.index_select(0, row.flatten()).view(count, HEIGHT, -1, 3).float().mul_(weight[:, :, None, None])
        for row, weight in zip(down.unbind(1), down_weight.unbind(1), strict=True)
    )
    between = upper.add_(lower).permute(0, 3, 1, 2).contiguous()
    left, right = (
        between.gather(3, column[:, None, None].expand(-1, 3, HEIGHT, -1)).mul_(weight[:, None, None])
        for column, weight in zip(across.unbind(1), across_weight.unbind(1), strict=True)
    )
    return left.add_(right).round_()


def with_mirrored(across: torch.Tensor, down: torch.Tensor) -> Scores:
    """The mean over pictures and their flipped copies, (2 n, 133, bins) to (n, 133, bins); the copies are the second half."""
    order = card.sent(np.array(MIRRORED), across.device)
    across, across_mirrored = across.chunk(2)
    down, down_mirrored = down.chunk(2)
    return (across + across_mirrored[:, order].flip(2)) * 0.5, (down + down_mirrored[:, order]) * 0.5


def decode(across: torch.Tensor, down: torch.Tensor, regions: Regions) -> NDArray[np.float64]:
    """(n, 133, 3) in the pictures' pixels: the best bin on each axis; the score is the lower of the two.

    A point with a score of 0 or less gets bin -1, left of and above the whole view.
    """
    middle, size = _frames(regions)
    (best_x, at_x), (best_y, at_y) = across.max(dim=2), down.max(dim=2)
    score = torch.minimum(best_x, best_y)
    bins = torch.stack([at_x, at_y], dim=2).masked_fill((score <= 0)[..., None], -1)
    seen = bins.double().cpu().numpy() / BINS
    points = seen / np.array([WIDTH, HEIGHT]) * size[:, None] + (middle - size / 2)[:, None]
    return np.concatenate([points, score.double().cpu().numpy()[..., None]], axis=2)


def face68(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 68, 2): the face's points of (n, 133, 3)."""
    return points[:, FACE, :2]


def _frames(regions: Regions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The view of each region: centre (n, 2) and size (n, 2), widened or heightened to the network's aspect ratio."""
    middle = (regions[:, :2] + regions[:, 2:]) / 2
    size = (regions[:, 2:] - regions[:, :2]) * PADDING
    shape = WIDTH / HEIGHT
    width = np.maximum(size[:, 0], size[:, 1] * shape)
    return middle, np.stack([width, width / shape], axis=1)


def _between(
    at: NDArray[np.int64],
    seen: int,
    size: NDArray[np.float64],
    middle: NDArray[np.float64],
    source: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The two source pixels that each view pixel lies between, (n, 2, seen) int64, and their float32 weights; 0 outside."""
    place = (at - seen / 2) * size / seen + middle
    before = np.floor(place)
    both = np.stack([before, before + 1], axis=1)
    weights = 1 - np.abs(place[:, None] - both)
    weights[(both < 0) | (both > source - 1)] = 0
    return np.clip(both, 0, source - 1).astype(np.int64), weights.astype(np.float32)
