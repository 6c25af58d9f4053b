"""Tone-maps high dynamic range pictures for a standard screen: PQ and HLG (ITU-R BT.2100) become BT.709.

Light levels are those of a 1000 nit mastering display. Its white of 203 nit (BT.2408) maps to the screen's white; anything
brighter is rolled off into the last tenth by the curve of BT.2390 (§5.4.1), which leaves everything below 90 nit unchanged. The
screen's gamma is BT.1886's. Channels are independent, so that it all reduces to two tables and a matrix.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from media.still import Picture

#: The transfer function tags of PQ and HLG streams.
PQ, HLG = 16, 18
#: The tag of primaries that need no conversion.
PRIMARIES_BT709 = 1

PEAK_NITS, WHITE_NITS = 1000.0, 203.0
#: The exponents of a screen (BT.1886) and of HLG's display at PEAK_NITS.
SCREEN, HLG_DISPLAY = 2.4, 1.2
#: The matrix from BT.2020 to BT.709 primaries (BT.2087), and the luminance of each BT.2020 primary.
TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132899, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
BRIGHT = np.array([[0.2627, 0.6780, 0.0593]], np.float32)

#: The tables' sizes: 12-bit input codes, and square roots of output light.
CODES, ROOTS = 1 << 12, 1 << 14

Table = NDArray[np.float64]


def is_high(frame: Any) -> bool:
    """Whether a decoded frame is PQ or HLG."""
    return frame.color_trc in (PQ, HLG)


def shown(codes: NDArray[np.uint16], transfer: int, primaries: int) -> Picture:
    """(height, width, 3) uint8 RGB for the screen, from the stored 16-bit RGB."""
    light = np.take(_light(transfer), codes >> 4, mode="clip")  # the fastest mode; indices are never out of range
    if transfer == HLG:
        light *= cv2.pow(cv2.transform(light, BRIGHT), HLG_DISPLAY - 1)[..., None]
    if primaries != PRIMARIES_BT709:
        light = cv2.transform(light, TO_BT709)
    roots = cv2.sqrt(np.clip(light, 0, 1)) * np.float32(ROOTS - 1) + np.float32(0.5)
    picture: Picture = np.take(_screen(), roots.astype(np.uint16), mode="clip")
    return picture


@functools.lru_cache(maxsize=2)
def _light(transfer: int) -> NDArray[np.float32]:
    """Each code's light as a fraction of PEAK_NITS; for HLG it is scene light, which the display raises to HLG_DISPLAY."""
    code = np.arange(CODES) / (CODES - 1)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
    return (_pq_nits(code) / PEAK_NITS).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _screen() -> NDArray[np.uint8]:
    """The screen's byte for each square root of light."""
    nits = (np.arange(ROOTS) / (ROOTS - 1)) ** 2 * PEAK_NITS
    share = _pq_nits(_rolled_off(_pq_code(nits))) / WHITE_NITS
    return np.rint(np.clip(share, 0, 1) ** (1 / SCREEN) * 255).astype(np.uint8)


def _rolled_off(code: Table) -> Table:
    """BT.2390's curve in PQ codes: a straight line, then a Hermite spline that ends at WHITE_NITS."""
    peak, white = float(_pq_code(np.array(PEAK_NITS))), float(_pq_code(np.array(WHITE_NITS)))
    most, seen = white / peak, code / peak
    knee = 1.5 * most - 0.5
    t = np.clip((seen - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return np.where(seen < knee, seen, spline) * peak


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def _pq_nits(code: Table) -> Table:
    power = code ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _pq_code(nits: Table) -> Table:
    power = (nits / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
