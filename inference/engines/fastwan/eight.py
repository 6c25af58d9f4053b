"""Linear layers whose weights are kept in 8 bits: half the memory, for the text encoder on cards that cannot hold it whole.

Each row of a weight has a scale of its own (its largest number is 127); the sums are made in the layer's own precision. It
changes the embeddings a little, see docs/fastwan.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.engines.fastwan import layers


class Linear8(nn.Module):
    """In place of a `Linear` without bias; rows (out, in) int8 and scales (out, 1)."""

    def __init__(self, weight: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        rows = weight.to(device).float()
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("rows", (rows / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.rows.to(x.dtype)) * self.scale.T

    @property
    def weight(self) -> Tensor:
        """What callers look at to learn the precision."""
        return self.scale


def smaller(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The network on `device`, every linear layer without bias in 8 bits, everything else in `dtype`. One layer at a time,
    so that the whole network is never on the card."""
    layers.replace(network, lambda weight: Linear8(weight, device, dtype))
    return network.to(device=device, dtype=dtype).eval().requires_grad_(False)
