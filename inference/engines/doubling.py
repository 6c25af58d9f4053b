"""Nearest-neighbour upsampling by two and the 3x3 convolution after it, merged into one 2x2 convolution with four outputs per
pixel: less than half of the arithmetic, the same sums up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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


def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, out, 2 h, 2 w), channels-last."""
    count, _, height, width = x.shape
    seen = functional.conv2d(x, weight, padding=1)  # (n, 4 out, h + 1, w + 1), a place's own from its corner
    out, added = len(bias), bias[:, None, None]
    size = (count, out, 2 * height, 2 * width)
    made = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for number in range(4):
        down, right = divmod(number, 2)
        place = seen[:, number * out : (number + 1) * out, down : down + height, right : right + width]
        torch.add(place, added, out=made[:, :, down::2, right::2])
    return made
