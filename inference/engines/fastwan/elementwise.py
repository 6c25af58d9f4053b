"""The elementwise arithmetic between FastWan's matrix products: norms, modulation, gates, positions.

Each is one pass over gigabytes when compiled, and three to eight when not (../fused.py). All work on rows (n, width), so one
compilation serves every video size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def norm_silu(x: Tensor, gamma: Tensor) -> Tensor:
    """x (n, c), each row scaled to the length sqrt(c), times gamma (c), through SiLU."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
    return functional.silu((x / length).to(x.dtype) * (gamma * x.shape[1] ** 0.5))


def modulate(made: Tensor, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Into made (n, w): layer norm of x (n, w) without weights, times 1 + scale (w), plus shift (w), in 32 bits."""
    normed = functional.layer_norm(x.float(), (x.shape[1],), eps=1e-6)
    return made.copy_(torch.addcmul(shift, normed, 1 + scale))


def gate(x: Tensor, added: Tensor, share: Tensor) -> Tensor:
    """Into x (n, w): x + added * share (w), in 32 bits."""
    return x.copy_(torch.addcmul(x.float(), added.float(), share))


def turn(x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (n, w) to unit mean square times weight (w), then rotary positions: each pair of numbers of a head turned by its
    row's angles, cosine and sine (n, d / 2). Returns (n, w / d, d)."""
    pairs = functional.rms_norm(x, (x.shape[1],), weight, 1e-6).view(len(x), -1, cosine.shape[1], 2)
    even, odd = pairs.unbind(-1)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.to(x.dtype).flatten(2)


def eighth(made: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Into made (n, w) float8_e4m3fn: x (n, w), each row divided by its scale, which is its largest number / 448 and goes into
    scale (n, 1). Uncompiled, the scale is rounded to the precision of x, which saves a copy in fp32; values that are slightly
    above 448 as a result are rounded back. Compiled, it need not be."""
    scale.copy_((torch.linalg.vector_norm(x, float("inf"), 1, keepdim=True).float().clamp_min(1e-12) / 448).to(x.dtype))
    return made.copy_(x / scale.to(x.dtype))
