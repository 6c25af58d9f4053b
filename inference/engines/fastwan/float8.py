"""The transformer's linear layers in 8-bit floating point (FASTWAN_LINEARS=fp8): half the memory and, on GPUs with fp8
multiplication, up to twice the rate. Not exact: see docs/fastwan.md for how much it changes.

Each row of a weight has its own scale; each token's input row has one too, recomputed every time. Sums are in fp32.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType

from errors import first_line
from inference.engines import card
from inference.engines.fastwan.elementwise import eighth
from inference.engines.fused import Fused

log = logging.getLogger(__name__)

KIND = torch.float8_e4m3fn
#: Rows in KIND, and the scale of each.
Numbers = tuple[Tensor, Tensor]
#: Rows, inputs and outputs of the test product (rows that do not fill whole tiles, as a video's may not); and how far the fp8
#: product may be from the exact one: 3.7 % was measured.
TRIED, APART = (500, 256, 384), 0.1


class LinearFloat8(nn.Module):
    """Replaces a `Linear`: weight (out, in) of KIND, weight_scale (out, 1) float32, bias (out). multiplied: the device
    multiplies KIND; if not, the weight is widened where it is used."""

    def __init__(self, linear: nn.Linear, multiplied: bool) -> None:
        super().__init__()
        place = {"device": linear.weight.device}
        self.weight = nn.Parameter(torch.empty(linear.weight.shape, dtype=KIND, **place), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(linear.out_features, 1, **place), requires_grad=False)
        self.bias = linear.bias
        self.multiplied = multiplied

    def forward(self, x: Tensor, compiled: Fused) -> Tensor:
        """x (…, in) -> (…, out), in the precision of x."""
        rows = x.flatten(0, -2)
        if self.multiplied:
            made = product(eighths(rows, compiled), (self.weight, self.weight_scale), self.bias, x.dtype)
        else:
            made = functional.linear(rows, self.weight.to(x.dtype) * self.weight_scale.to(x.dtype), self.bias)
        return made.unflatten(0, x.shape[:-1])


def eighths(rows: Tensor, compiled: Fused | None = None) -> Numbers:
    """Quantize rows (n, w) to KIND, with a scale for each (n, 1) float32; uncompiled, the scale is rounded to the precision
    of `rows`."""
    made = torch.empty(rows.shape, dtype=KIND, device=rows.device)
    scale = torch.empty(len(rows), 1, device=rows.device)
    (compiled or Fused()).run(eighth, made, rows, scale)
    return made, scale


def product(rows: Numbers, weight: Numbers, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The output of a linear layer for rows (n, in) and a weight (out, in): (n, out) in `dtype`."""
    (x, x_scale), (w, w_scale) = rows, weight
    by_row = ScalingType.RowWise
    return functional.scaled_mm(
        x, w.t(), x_scale, by_row, w_scale.t(), by_row, bias=bias, output_dtype=dtype, use_fast_accum=True
    )


def replaced(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A transformer without weights, with every linear layer of its blocks replaced; `numbers` gives the tensors to load."""
    multiplied = is_multiplied(device, dtype)
    for block in network.get_submodule("blocks").modules():
        for name, child in list(block.named_children()):
            if isinstance(child, nn.Linear):
                setattr(block, name, LinearFloat8(child, multiplied))
    return network


def numbers(name: str, tensor: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The tensors for the one of this name in a transformer that is `replaced`; computed on the device."""
    if not (name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2):
        return {name: tensor}
    made, scale = eighths(tensor.to(device))
    return {name: made, f"{name}_scale": scale}


@functools.cache
def is_multiplied(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device multiplies KIND with a scale per row, and correctly; logs a warning if not."""
    count, width, out = TRIED
    x, weight = torch.randn(count, width, device=device).to(dtype), torch.randn(out, width, device=device).to(dtype)
    bias = torch.randn(out, device=device).to(dtype)  # as every layer has one
    expected = functional.linear(x, weight, bias).float()
    try:
        made = product(eighths(x), eighths(weight), bias, dtype).float()
        apart = float((made - expected).norm() / expected.norm())
    except RuntimeError as error:
        if card.is_full(error):
            raise
        log.warning("%s does not support fp8 multiplication, so fp8 saves memory but no time: %s", device, first_line(error))
        return False
    if not apart < APART:
        log.warning("%s multiplies fp8 incorrectly (error %.0f %%); weights are widened first", device, 100 * apart)
        return False
    return True
