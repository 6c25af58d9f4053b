"""Finds the line along which a mouth opens, in pictures of the face brought to one size and place.

Lengths are in distances between the eyes, from the middle between them: u to the right, v downwards along the face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.engines.preview import face

#: Where the mouth usually is, and how far from there its line is looked for.
USUAL_V, SEARCH_V = 0.92, 0.22
#: Half of a mouth's width: at least, usually, at most.
HALF_MIN, HALF_MAX = 0.20, 0.40

#: A pixel of a tooth is so much brighter than the skin, and so much less red (OpenCV's 8-bit Lab).
TEETH_BRIGHTER, TEETH_LESS_RED = 12, 3
#: Teeth count as seen if they show over so much of the width.
TEETH_WIDTH = 0.3

#: One distance between the eyes, in pixels of a patch, and the middle between them.
UNIT = float(face.PATCH_EYES_PX)
X0, Y0 = face.PATCH_MIDDLE


@dataclass(frozen=True, kw_only=True)
class Lips:
    """The line between the lips: v = middle + bend · (u - u0)², for u from u0 - half to u0 + half."""

    u0: float
    middle: float
    bend: float
    half: float


def find(patches: list[face.Patch]) -> Lips:
    """Where the mouth opens: below the teeth if they are seen, else along the dark valley between the lips."""
    typical = np.asarray(np.median(np.stack(patches), axis=0), dtype=np.uint8)
    return _below_teeth(typical) or _valley(typical)


def _below_teeth(typical: face.Patch) -> Lips | None:
    """The lower edge of the upper teeth of a smiling face; None if no teeth are seen."""
    lab = cv2.cvtColor(typical, cv2.COLOR_RGB2LAB).astype(np.int16)
    cheeks = lab[_row(0.45) : _row(0.75), [*range(_column(-0.5), _column(-0.3)), *range(_column(0.3), _column(0.5))]]
    skin = np.median(cheeks.reshape(-1, 3), axis=0)
    rows, columns = np.arange(_row(USUAL_V - SEARCH_V), _row(USUAL_V + SEARCH_V)), np.arange(_column(-0.45), _column(0.45))
    part = lab[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    teeth = (part[:, :, 0] > skin[0] + TEETH_BRIGHTER) & (part[:, :, 1] < skin[1] - TEETH_LESS_RED)
    teeth = _largest(teeth)
    seen = teeth.sum(axis=0) >= 0.04 * UNIT
    if seen.sum() < TEETH_WIDTH * UNIT:
        return None
    lowest = rows[-1] + 1 - teeth[::-1].argmax(axis=0)
    us = ((columns - X0) / UNIT)[seen]
    u0, half = float((us[0] + us[-1]) / 2), float((us[-1] - us[0]) / 2) + 0.03
    return _line(us, (lowest[seen] - Y0) / UNIT, np.ones(len(us)), u0, half)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of the mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count < 2:
        return mask
    return np.asarray(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax())


def _valley(typical: face.Patch) -> Lips:
    """The line that is darker than what is above and below, across the place where mouths are."""
    grey: Any = cv2.cvtColor(typical, cv2.COLOR_RGB2GRAY).astype(np.float32)
    valley = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.13 * UNIT) - cv2.GaussianBlur(grey, (0, 0), 0.02 * UNIT))
    rows = np.arange(_row(USUAL_V - SEARCH_V), _row(USUAL_V + SEARCH_V))
    usual = np.exp(-0.5 * (((rows - Y0) / UNIT - USUAL_V) / (0.6 * SEARCH_V)) ** 2)
    darkness = valley[rows[0] : rows[-1] + 1, _column(-0.2) : _column(0.2)].mean(axis=1)
    row, reach = int(rows[np.argmax(np.maximum(darkness, 0.1) * usual)]), round(0.09 * UNIT)
    columns = np.arange(_column(-0.5), _column(0.5) + 1)
    us, band = (columns - X0) / UNIT, valley[row - reach : row + reach + 1][:, columns]
    weight = np.maximum(band.max(axis=0), 1e-3) ** 2 * np.exp(-0.5 * (us / 0.33) ** 2)
    weight /= weight.sum()
    u0 = float(np.clip((us * weight).sum(), -0.08, 0.08))
    half = 1.75 * math.sqrt(float(((us - u0) ** 2 * weight).sum()))
    return _line(us, (row - reach + band.argmax(axis=0) - Y0) / UNIT, weight, u0, half)


def _line(us: NDArray[Any], vs: NDArray[Any], weight: NDArray[Any], u0: float, half: float) -> Lips:
    """The parabola through the points, kept to what mouths are."""
    half = float(np.clip(half, HALF_MIN, HALF_MAX))
    near = np.abs(us - u0) < half
    bend, middle = np.polyfit((us[near] - u0) ** 2, vs[near], 1, w=np.sqrt(weight[near]))
    bend = float(np.clip(bend, -0.16 / half**2, 0.02 / half**2))
    return Lips(u0=u0, middle=float(np.clip(middle, USUAL_V - SEARCH_V, USUAL_V + SEARCH_V)), bend=bend, half=half)


def _row(v: float) -> int:
    return round(Y0 + v * UNIT)


def _column(u: float) -> int:
    return round(X0 + u * UNIT)
