"""The rectangle around a face that is regenerated: from 68 landmarks, smoothed over time, clipped to the frame.

The landmark arithmetic is the published pipeline's, to the pixel: the box reaches as far above nose point 29 as the chin is
below it, and is as wide as the landmarks. Two things are our own, both off in parity. Landmarks are quantised to several
pixels, so boxes are smoothed over time. And a box is clipped to all four edges of the frame before anything uses it, so that
the crop and the paste are the same rectangle (the published pipeline crops short and pastes at full size).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: Of the 68 points, the one on the bridge of the nose that the box is symmetric about.
NOSE = 29

#: The smoothing window for boxes, in seconds. A parabola is fitted to it, so steady movement and its turning points are kept
#: while the landmarks' steps are removed; the fit is evaluated at its centre, so nothing lags.
WINDOW_S = 0.4
#: If a face is not found for at most this long, its path is interpolated linearly.
GAP_S = 0.4
#: If the boxes of two frames overlap less than this (intersection over union), there is a cut between them.
CUT_IOU = 0.3

#: (4,) or (n, 4) float: left, top, right, bottom in pixels; NaN where there is no face.
Edges = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """In whole pixels; x2 and y2 are exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        return self.y2 - self.y1

    def cut(self, width: int, height: int) -> Box:
        """The part of it that lies in a picture of this size."""
        return Box(max(self.x1, 0), max(self.y1, 0), min(self.x2, width), min(self.y2, height))

    def moved(self, x: int, y: int) -> Box:
        return Box(self.x1 + x, self.y1 + y, self.x2 + x, self.y2 + y)


def of_points(points: NDArray[np.float64], shift: int = 0, found: tuple[float, ...] | None = None) -> Box | None:
    """The published box of one frame. points: (68, 2) float, x and y in pixels; truncated to whole pixels.

    shift moves the nose point down, in pixels. found is the detector's box (left, top, right, bottom), used if the points give
    no valid box; without it the result is then None.
    """
    whole = points.astype(np.int32)
    whole[NOSE, 1] += shift
    left, right, bottom = int(whole[:, 0].min()), int(whole[:, 0].max()), int(whole[:, 1].max())
    nose = int(whole[NOSE, 1])
    top = max(0, 2 * nose - bottom)
    if bottom > top and right > left and left >= 0:
        return Box(left, top, right, bottom)
    return Box(*(int(max(edge, 0.0)) for edge in found[:4])) if found is not None else None


def edges_of_points(points: NDArray[np.float64], shift: int = 0) -> Edges:
    """The same boxes for `steady`, for many frames: (n, 68, 2) to (n, 4), neither truncated nor clipped; NaN stays NaN."""
    moved = points.astype(np.float64)
    moved[:, NOSE, 1] += shift
    left, right, bottom = moved[..., 0].min(axis=1), moved[..., 0].max(axis=1), moved[..., 1].max(axis=1)
    edges = np.stack([left, 2 * moved[:, NOSE, 1] - bottom, right, bottom], axis=1)
    edges[(edges[:, 2] - edges[:, 0] < 1) | (edges[:, 3] - edges[:, 1] < 1)] = np.nan
    return edges


def steady(edges: Edges, rate: Fraction) -> Edges:
    """Boxes over time without the landmarks' steps, short gaps filled. edges: (n, 4), one row per frame.

    A quadratic Savitzky-Golay filter over WINDOW_S on each edge, symmetric in time. It never reaches across a cut or a gap
    longer than GAP_S; rows in such gaps stay NaN.
    """
    filled = _filled(edges, max(1, round(GAP_S * rate)))
    reach = max(1, round(WINDOW_S * rate / 2))
    calm = filled.copy()
    for start, stop in _movements(filled):
        calm[start:stop] = _fitted(filled[start:stop], reach)
    return calm


def whole(edges: Edges, width: int, height: int) -> list[Box | None]:
    """Each row in whole pixels, clipped to the frame; None where there is no face, or less than 2 pixels of it remain."""
    boxes: list[Box | None] = []
    for row in edges:
        box = None if np.isnan(row).any() else Box(*(round(float(edge)) for edge in row)).cut(width, height)
        boxes.append(box if box and box.width >= 2 and box.height >= 2 else None)
    return boxes


def with_margin(box: Box, margin: int, height: int) -> Box:
    """The box extended `margin` pixels below the chin (version 1.5: 10), but not beyond the frame."""
    return Box(box.x1, box.y1, box.x2, min(box.y2 + margin, height))


def overlap(one: Edges, other: Edges) -> NDArray[np.float64]:
    """Intersection over union of boxes, (…, 4) and (…, 4) broadcast; 0 where one is NaN or empty."""
    corner, far = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:4], other[..., 2:4])
    shared = np.prod(np.clip(far - corner, 0, None), axis=-1)
    both = sum(np.prod(np.clip(box[..., 2:4] - box[..., :2], 0, None), axis=-1) for box in (one, other)) - shared
    return np.asarray(np.nan_to_num(shared / np.maximum(both, 1e-9)))


def _filled(edges: Edges, longest: int) -> Edges:
    """Runs of at most `longest` NaN rows with the same face on both sides, interpolated linearly."""
    filled = edges.astype(np.float64)
    known = np.flatnonzero(~np.isnan(filled).any(axis=1))
    for before, after in itertools.pairwise(known):
        if 1 < after - before <= longest + 1 and overlap(filled[before], filled[after]) >= CUT_IOU:
            share = (np.arange(1, after - before) / (after - before))[:, None]
            filled[before + 1 : after] = filled[before] * (1 - share) + filled[after] * share
    return filled


def _movements(edges: Edges) -> list[tuple[int, int]]:
    """Continuous movements of a face: (start, stop) of rows without NaN and without a cut between."""
    there = np.asarray(~np.isnan(edges).any(axis=1))
    joined = there[1:] & there[:-1] & (overlap(edges[1:], edges[:-1]) >= CUT_IOU)
    starts = [at for at in range(len(edges)) if there[at] and (at == 0 or not joined[at - 1])]
    stops = [at + 1 for at in range(len(edges)) if there[at] and (at == len(edges) - 1 or not joined[at])]
    return list(zip(starts, stops, strict=True))


def _fitted(rows: Edges, reach: int) -> Edges:
    """Each row replaced by a parabola fitted to it and up to `reach` rows on either side, the same number on both; at the ends,
    the parabolas of the first and last full windows are extended."""
    count = len(rows)
    reach = min(reach, (count - 1) // 2)
    if reach < 2:  # three points lie on a parabola anyway
        return rows.copy()
    times = np.arange(-reach, reach + 1, dtype=np.float64)
    terms = np.stack([np.ones_like(times), times, times**2], axis=1)
    solve = np.linalg.pinv(terms)  # (3, window)
    fitted = np.stack([np.convolve(column, solve[0][::-1], mode="valid") for column in rows.T], axis=1)
    head, tail = solve @ rows[: 2 * reach + 1], solve @ rows[count - 2 * reach - 1 :]
    return np.concatenate([terms[:reach] @ head, fitted, terms[reach + 1 :] @ tail])
