"""Opens a mouth along the line between its lips.

Lengths here are in distances between the eyes, from the middle between them: u to the right, v downwards along the
face. Opening is a warp: what is above the line stays, or rises a little; what is below sinks with the jaw, less and less
down to the neck; in the gap is the dark of the mouth.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.engines.preview import face
from inference.engines.preview.lips import Lips
from media.still import Picture

#: The gap between the lips when the mouth is wide open, at most; no more than a share of the mouth's width.
GAP, GAP_SHARE = 0.24, 0.34
#: How much of the gap the upper lip makes by rising.
RISE = 0.15
#: Below the line: where the jaw's movement has become that of the chin, and where it has ended (in the neck).
CHIN, NECK = 0.45, 1.05
#: Half of the jaw's width.
JAW = 0.62
#: Openings below this leave the picture as it is.
MIN_OPENING = 0.02

#: The colour inside a mouth in full light: at its top, and lower where the tongue is; RGB, 0 to 255.
DARK, TONGUE = np.array((38.0, 14.0, 14.0), np.float32), np.array((112.0, 48.0, 48.0), np.float32)


def open_mouth(picture: Picture, pose: NDArray[np.float64], lips: Lips, opening: float) -> Picture:
    """The picture with the mouth open: 0 shut (the picture itself) to 1. pose: a row of `Finder.poses`, may be NaN."""
    if opening < MIN_OPENING or np.isnan(pose[0]):
        return picture
    where = face.Pose(*pose)
    left, top, right, bottom = _surroundings(picture, where, lips)
    if right - left < 8 or bottom - top < 8:
        return picture
    part = picture[top:bottom, left:right]
    u, v = _face_coordinates(where, lips, left, top, right, bottom)
    gap = opening * min(GAP, GAP_SHARE * 2 * lips.half)
    shape = np.asarray(
        gap * np.sqrt(np.clip(1 - (u / lips.half) ** 2, 0, 1)), dtype=np.float32
    )  # the gap's height over u: an almond
    v = np.asarray(v - lips.bend * np.minimum(np.abs(u), lips.half) ** 2, dtype=np.float32)  # from the line on
    shift = np.where(v < (0.5 - RISE) * shape, _rise(v, shape), _sink(u, v, shape, gap))
    warped = _moved(part, where, shift)
    inside, depth = _inside(v, shape, 1.2 / where.eyes)
    light = float(part.mean()) / 128
    colour = (DARK + (TONGUE - DARK) * (depth**2)[:, :, np.newaxis]) * min(1.2, max(0.3, light))
    mixed = warped + (colour - warped) * inside[:, :, np.newaxis]
    result = picture.copy()
    result[top:bottom, left:right] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return result


def _surroundings(picture: Picture, where: face.Pose, lips: Lips) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of the picture that may move, in pixels."""
    height, width = picture.shape[:2]
    sine, cosine = math.sin(where.tilt), math.cos(where.tilt)
    corners = [
        (where.x + where.eyes * (u * cosine - v * sine), where.y + where.eyes * (u * sine + v * cosine))
        for u in (lips.u0 - 2 * JAW, lips.u0 + 2 * JAW)
        for v in (lips.middle - 0.4, lips.middle + NECK)
    ]
    xs, ys = zip(*corners, strict=True)
    return max(0, int(min(xs))), max(0, int(min(ys))), min(width, int(max(xs)) + 1), min(height, int(max(ys)) + 1)


def _face_coordinates(
    where: face.Pose, lips: Lips, left: int, top: int, right: int, bottom: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """u and v of every pixel of the part, from the middle of the line between the lips."""
    sine, cosine = math.sin(where.tilt) / where.eyes, math.cos(where.tilt) / where.eyes
    x = (np.arange(left, right, dtype=np.float32) - np.float32(where.x))[np.newaxis]
    y = (np.arange(top, bottom, dtype=np.float32) - np.float32(where.y))[:, np.newaxis]
    u = x * np.float32(cosine) + y * np.float32(sine) - np.float32(lips.u0)
    v = y * np.float32(cosine) - x * np.float32(sine) - np.float32(lips.middle)
    return u, v


def _step(values: NDArray[Any]) -> NDArray[np.float32]:
    """0 up to 0, 1 from 1 on, smooth between."""
    clipped = np.clip(values, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped))


def _rise(v: NDArray[np.float32], shape: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far what is seen above the gap has moved (downwards positive): the upper lip rises, the nose stays."""
    return np.asarray(-RISE * shape * (1 - _step(-v / np.float32(0.3))))


def _sink(u: NDArray[np.float32], v: NDArray[np.float32], shape: NDArray[np.float32], gap: float) -> NDArray[np.float32]:
    """The same below the gap: at the lip as far as the gap, at the chin as the jaw, in the neck not at all."""
    jaw = np.float32(0.7 * gap) * np.exp(-((u / np.float32(JAW)) ** 4))
    lower = np.maximum(v - np.float32(1 - RISE) * shape, np.float32(0))
    towards_chin = _step(lower / np.float32(CHIN))
    moved = (1 - RISE) * shape * (1 - towards_chin) + jaw * towards_chin
    return np.asarray(moved * (1 - _step((v - np.float32(0.5 * CHIN)) / np.float32(NECK - 0.5 * CHIN))))


def _moved(part: Picture, where: face.Pose, shift: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part with every pixel taken from where it was before it moved by `shift` down the face."""
    height, width = part.shape[:2]
    x = np.arange(width, dtype=np.float32)[np.newaxis] + shift * np.float32(math.sin(where.tilt) * where.eyes)
    y = np.arange(height, dtype=np.float32)[:, np.newaxis] - shift * np.float32(math.cos(where.tilt) * where.eyes)
    moved: Any = cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)


def _inside(v: NDArray[np.float32], shape: NDArray[np.float32], soft: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much of each pixel is inside the open mouth, 0 to 1, and how low in it, 0 to 1."""
    above, below = v + RISE * shape, (1 - RISE) * shape - v
    edge = np.minimum(above, below) / np.float32(soft)
    inside = np.clip(edge + 0.5, 0, 1) * np.clip(shape / np.float32(2 * soft), 0, 1)
    return np.asarray(inside), np.clip(above / np.maximum(shape, 1e-4), 0, 1)
