"""Puts other layers in the place of a text encoder's large ones, which are its linear layers without bias; knows no kind of
layer that it puts there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def replace(network: nn.Module, made: Callable[[Tensor], nn.Module]) -> None:
    """Every linear layer without bias becomes what `made` makes of its weight (out, in), in place and one after the other, so
    that the old weight of each can go before the next one is read."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child.bias is None:
                setattr(module, name, made(child.weight))
