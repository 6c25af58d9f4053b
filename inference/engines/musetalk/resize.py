"""The published pipeline's resizing, bit-exact, without Pillow, on any device: OpenCV's Lanczos and two Pillow filters.

Both libraries use integer weights (a fraction times a power of two) and round once per pass. The sums fit in 32 bits, so CPU
and GPU give the same result. The weights are documented in OpenCV's `resize` (INTER_LANCZOS4: eight taps, 11 bits) and in
Pillow's `Resample.c` (a filter that widens as the picture shrinks, 22 bits, horizontal pass first).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card

#: Fractional bits of a weight.
OPENCV_BITS, PILLOW_BITS = 11, 22
LANCZOS_TAPS = 8

Filter = Literal["bilinear", "bicubic"]

#: The filter radius in source pixels when the picture does not shrink.
REACH: dict[str, float] = {"bilinear": 1.0, "bicubic": 2.0}


@dataclass(frozen=True)
class Taps:
    """The source pixels of each target pixel and their integer weights: (target, taps) each."""

    at: NDArray[np.int64]
    weight: NDArray[np.int32]

    def sums(self, picture: torch.Tensor, axis: int, part: slice = slice(None)) -> torch.Tensor:
        """int32: the weighted sums along one axis of (h, w, c), or only this part of them."""
        at, weight = (card.sent(table[part].T.copy(), picture.device) for table in (self.at, self.weight))
        lines = picture.transpose(0, axis).contiguous()  # gather and weight whole lines, whatever the axis
        total = torch.zeros((at.shape[1], *lines.shape[1:]), dtype=torch.int32, device=picture.device)
        for pixel, share in zip(at, weight, strict=True):
            total += lines.index_select(0, pixel) * share.view(-1, 1, 1)
        return total.transpose(0, axis)


def lanczos(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(h, w, c) uint8 to (height, width, c) uint8, as `cv2.resize` with INTER_LANCZOS4 does, rounded once for both axes."""
    across = lanczos_taps(picture.shape[1], width).sums(picture, 1)
    return _rounded(lanczos_taps(picture.shape[0], height).sums(across, 0), 2 * OPENCV_BITS)


def pillow(
    picture: torch.Tensor, side: int, kind: Filter, rows: slice = slice(None), columns: slice = slice(None)
) -> torch.Tensor:
    """(s, s, c) uint8 to (side, side, c) uint8, as Pillow's `Image.resize` does; only these rows and columns of it.

    Squares only: in newer releases, which axis comes first, and so is rounded first, depends on the shape.
    """
    if side == picture.shape[0]:
        return picture[rows, columns]
    taps = pillow_taps(picture.shape[0], side, kind)
    at, weight = taps.at[rows], taps.weight[rows]
    first, stop = int(at.min()), int(at.max()) + 1  # only these rows are needed
    across = _rounded(taps.sums(picture[first:stop], 1, columns), PILLOW_BITS)
    return _rounded(Taps(at - first, weight).sums(across, 0), PILLOW_BITS)


def quick(pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, h, w, c) uint8 to (n, c, height, width) float32 with integer values, by torch's own filter, which is Pillow's
    bilinear: one kernel instead of twenty. On a GPU a byte may differ by one; on a CPU torch computes in bytes too, several
    times as fast."""
    channels = pictures.permute(0, 3, 1, 2)
    seen = channels if pictures.device.type == "cpu" else channels.float()
    small = torch.nn.functional.interpolate(seen, size=(height, width), mode="bilinear", antialias=True)
    return small.float() if small.dtype == torch.uint8 else small.round_()


@functools.lru_cache(maxsize=16)
def by_channel(numbers: tuple[float, ...], width: int, device: torch.device) -> torch.Tensor:
    """(1, c, 1, width): one number per channel, for arithmetic on channels-last pictures of that width. (1, c, 1, 1) would also
    work, but in steps of c numbers instead of a row."""
    return torch.tensor(numbers, device=device).repeat(width).view(1, 1, width, len(numbers)).permute(0, 3, 1, 2)


def _rounded(sums: torch.Tensor, bits: int) -> torch.Tensor:
    return ((sums + (1 << (bits - 1))) >> bits).clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=64)
def lanczos_taps(source: int, target: int) -> Taps:
    """OpenCV's eight weights per pixel; pixels beyond an edge repeat the edge."""
    place = _opencv_places(source, target)
    first = np.floor(place).astype(np.int64)
    share = (place - first.astype(np.float32)).astype(np.float32)
    weight = np.rint(_lanczos_weights(share) * np.float32(2**OPENCV_BITS)).astype(np.int32)
    at = np.clip(first[:, None] + np.arange(LANCZOS_TAPS) - (LANCZOS_TAPS // 2 - 1), 0, source - 1)
    return Taps(at, weight)


def _opencv_places(source: int, target: int) -> NDArray[np.float32]:
    """Each target pixel's centre in source coordinates, rounded as OpenCV does."""
    scale = 1.0 / (target / source)
    return ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)


def _lanczos_weights(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Lanczos window of eight pixels at a fraction 0 <= s < 1 of the way to the next one, (n, 8) float32, summing to 1.

    sinc(t) sinc(t/4) at t = s + 3 - i. Both sines are derived from those at i = 0 by rotation, as in OpenCV, so that rounding
    matches: sin(pi t) only alternates in sign and cancels out, sin(pi t / 4) rotates by 45 degrees per step.
    """
    s = share.astype(np.float64)[:, None]
    steps = np.arange(LANCZOS_TAPS)
    angle = -(s + 3) * math.pi * 0.25
    half = 0.70710678118654752440084436210485
    sines = np.array([1, -half, 0, half, -1, half, 0, -half])
    cosines = np.array([0, -half, 1, -half, 0, half, -1, half])
    distance = s + 3 - steps
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = ((sines * np.sin(angle) + cosines * np.cos(angle)) / (distance * math.pi * 0.25) ** 2).astype(np.float32)
    weights[np.abs(distance) < 1e-6] = 1e30  # exactly on a pixel: only that one counts
    return np.asarray(weights * (np.float32(1) / _added_up(weights)), dtype=np.float32)


@functools.lru_cache(maxsize=64)
def pillow_taps(source: int, target: int, kind: Filter) -> Taps:
    """Pillow's weights: a filter that widens as the picture shrinks, truncated at the edges and renormalised to 1."""
    scale = source / target
    widened = max(scale, 1.0)
    reach = REACH[kind] * widened
    middle = (np.arange(target) + 0.5) * scale
    first = np.maximum(0, (middle - reach + 0.5).astype(np.int64))
    stop = np.minimum(source, (middle + reach + 0.5).astype(np.int64))
    at = first[:, None] + np.arange(int((stop - first).max()))
    distance = np.abs((at - middle[:, None] + 0.5) * (1.0 / widened))
    weight = np.where(at < stop[:, None], _bilinear(distance) if kind == "bilinear" else _bicubic(distance), 0.0)
    shares = weight / _added_up(weight) * 2**PILLOW_BITS
    return Taps(np.minimum(at, source - 1), np.trunc(shares + np.copysign(0.5, shares)).astype(np.int32))


def _bilinear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(distance < 1, 1 - distance, 0.0)


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -1/2."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _added_up(weights: NDArray[Any]) -> NDArray[Any]:
    """(n, 1), summed sequentially: numpy's own sum adds in another order and can differ in the last bit."""
    return np.asarray(np.cumsum(weights, axis=1, dtype=weights.dtype)[:, -1:])
