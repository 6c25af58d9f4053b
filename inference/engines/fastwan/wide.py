"""Linear layers whose 16-bit weights are widened to fp32 where they are used: for the text encoder on CPUs without bfloat16
arithmetic, where torch multiplies element by element. Weights stay memory-mapped; sums are in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.engines.fastwan import layers

#: Rows of a weight that are widened at once: a few megabytes, which stay in the CPU's cache while they are used.
ROWS = 1024


class LinearWide(nn.Module):
    """Replaces a `Linear` without bias; takes any precision, returns fp32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", weight.detach())
        self.register_buffer("weight", torch.empty(0))  # callers read the precision from it

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return torch.cat([functional.linear(x, rows.float()) for rows in self.rows.split(ROWS)], dim=-1)


class WordsWide(nn.Module):
    """Replaces an `Embedding`; returns fp32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", weight.detach())

    def forward(self, numbers: Tensor) -> Tensor:
        return functional.embedding(numbers, self.rows).float()


def is_needed(network: Any) -> bool:
    """Whether this network is in bfloat16 and this CPU has no bfloat16 arithmetic."""
    return next(network.parameters()).dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def widened(network: Any) -> Any:
    """The encoder in fp32, except for the large weights, which stay as they are. Its first parameter has its precision."""
    layers.replace(network, LinearWide)
    network.set_input_embeddings(WordsWide(network.get_input_embeddings().weight))
    for parameter in network.parameters():
        parameter.data = parameter.data.float()
    return network.eval().requires_grad_(False)
