"""Linear layers whose 16-bit weights are made 32 bits wide where they are used: the text encoder on processors without
arithmetic for bfloat16, where torch multiplies number by number. Weights stay mapped from their files; sums are exact to 32
bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.engines.fastwan import layers

#: So many rows of a weight are widened at once: a few megabytes, which stay in the processor's cache while they are used.
ROWS = 1024


class LinearWide(nn.Module):
    """In place of a `Linear` without bias; takes any precision, gives 32 bits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", weight.detach())
        self.register_buffer("weight", torch.empty(0))  # what callers look at to learn the precision

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return torch.cat([functional.linear(x, rows.float()) for rows in self.rows.split(ROWS)], dim=-1)


class WordsWide(nn.Module):
    """In place of an `Embedding`; gives 32 bits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", weight.detach())

    def forward(self, numbers: Tensor) -> Tensor:
        return functional.embedding(numbers, self.rows).float()


def is_needed(network: Any) -> bool:
    """Whether this network is in bfloat16 and this processor is not made for that."""
    return next(network.parameters()).dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def widened(network: Any) -> Any:
    """The encoder in 32 bits, but for the large weights, which stay as they are. Its first parameter says its precision."""
    layers.replace(network, LinearWide)
    network.set_input_embeddings(WordsWide(network.get_input_embeddings().weight))
    for parameter in network.parameters():
        parameter.data = parameter.data.float()
    return network.eval().requires_grad_(False)
