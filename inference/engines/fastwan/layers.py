"""Replaces a text encoder's large layers, which are its linear layers without bias, by any other kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def replace(network: nn.Module, made: Callable[[Tensor], nn.Module]) -> None:
    """Replace every linear layer without bias by made(weight (out, in)), in place and one at a time, so that each old weight
    can be freed before the next one is read."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child.bias is None:
                setattr(module, name, made(child.weight))
