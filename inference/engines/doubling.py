"""Nearest-neighbour upsampling by two and the 3x3 convolution after it, merged into one 2x2 convolution with four outputs per
pixel: less than half of the arithmetic, the same sums up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inference.engines.fused import Fused

#: Weights (4 out, in, 2, 2) and bias (out).
Merged = tuple[Tensor, Tensor]


def merged(conv: Any) -> Merged:
    """What `doubled` needs to do the work of `conv` (3x3, padding 1) on an upsampled picture.

    Each of a pixel's four places in the upsampled picture sees 2x2 source pixels; taps of `conv` that fall on the same one are
    added, in fp32.
    """
    weight = conv.weight.float()
    rows = (
        torch.stack((weight[:, :, 0], weight[:, :, 1] + weight[:, :, 2]), 2),
        torch.stack((weight[:, :, 0] + weight[:, :, 1], weight[:, :, 2]), 2),
    )
    places = []
    for row in rows:
        places.append(torch.stack((row[..., 0], row[..., 1] + row[..., 2]), 3))
        places.append(torch.stack((row[..., 0] + row[..., 1], row[..., 2]), 3))
    return torch.cat(places).to(conv.weight.dtype).contiguous(memory_format=torch.channels_last), conv.bias


def doubled(x: Tensor, weight: Tensor, bias: Tensor, fused: Fused | None = None) -> Tensor:
    """(n, c, h, w) -> (n, out, 2 h, 2 w), channels-last."""
    seen = functional.conv2d(x, weight, padding=1).contiguous(memory_format=torch.channels_last)
    return (fused or Fused()).run(spread, seen, bias, plain=spread_by_torch)


def spread(seen: Tensor, bias: Tensor) -> Tensor:
    """Puts each pixel's four places where they belong and adds the bias: (n, 4 out, h + 1, w + 1) -> (n, out, 2 h, 2 w), both
    channels-last."""
    return _as_pictures((_places(seen, len(bias)) + bias).contiguous())


def spread_by_torch(seen: Tensor, bias: Tensor) -> Tensor:
    """The same in one of torch's own kernels."""
    places = _places(seen, len(bias))
    return _as_pictures(torch.add(places, bias, out=torch.empty_like(places, memory_format=torch.contiguous_format)))


def _places(seen: Tensor, out: int) -> Tensor:
    """A view (n, h, 2, w, 2, out): row, place down, column, place right. A place's own pixels begin at its corner, so that from
    one place to the next, down or right, it is equally far everywhere."""
    whole, _, down, right = seen.stride()
    size = (len(seen), seen.shape[2] - 1, 2, seen.shape[3] - 1, 2, out)
    return seen.as_strided(size, (whole, down, down + 2 * out, right, right + out, 1))


def _as_pictures(made: Tensor) -> Tensor:
    count, height, _, width, _, out = made.shape
    return made.view(count, 2 * height, 2 * width, out).permute(0, 3, 1, 2)
