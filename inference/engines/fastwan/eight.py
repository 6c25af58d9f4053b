"""Linear layers with 8-bit weights: half the memory, for the text encoder on GPUs that cannot hold it in bf16.

Each row of a weight has its own scale (its largest value is 127); sums are in the layer's own precision. This changes the
embeddings a little, see docs/fastwan.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.engines.fastwan import layers


class Linear8(nn.Module):
    """Replaces a `Linear` without bias; rows (out, in) int8 and scales (out, 1)."""

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
        """Callers read the precision from it."""
        return self.scale


def smaller(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The network on `device`, with every linear layer without bias in 8 bits and everything else in `dtype`. One layer at a
    time, so that the GPU never holds the whole 16-bit network."""
    layers.replace(network, lambda weight: Linear8(weight, device, dtype))
    return network.to(device=device, dtype=dtype).eval().requires_grad_(False)
