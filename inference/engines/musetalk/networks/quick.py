"""Blocks that take the place of diffusers' own in the VAE and the UNet: the same weights and sums, fewer passes over memory.

At 256x256 a decoder's time goes into moving pictures, not only into convolutions. torch's group norm on a GPU converts a
channels-last picture to the other layout, and the convolution after it converts it back; SiLU, each convolution's bias, the
shortcut and a division by one are kernels of their own. Here a norm is one pass that sums and one that writes, with SiLU and
the bias before it; a bias and a shortcut are one pass. Upsampling is merged into the convolution after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from inference.engines import doubling
from inference.engines.fused import Fused


def norm_silu(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Group norm and SiLU of x + added: x (n, c, h, w) channels-last, the others (c).

    Sums are taken for each channel, whose numbers lie side by side, and then combined: a group's variance is the mean of its
    channels' variances plus the variance of their means.
    """
    count, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    spread, mean = torch.var_mean(pixels.float(), dim=1, correction=0)
    means, spreads = (mean + added).view(count, groups, -1), spread.view(count, groups, -1)
    middle = means.mean(2, keepdim=True)
    variance = spreads.mean(2, keepdim=True) + (means - middle).square().mean(2, keepdim=True)
    scale = weight.view(groups, -1) * (variance + eps).rsqrt()
    shift = (added.view(groups, -1) - middle) * scale + bias.view(groups, -1)
    scale, shift = scale.view(count, 1, channels), shift.view(count, 1, channels)
    made = functional.silu(pixels.float() * scale + shift).to(x.dtype)
    return made.view(count, height, width, channels).permute(0, 3, 1, 2)


def norm_silu_by_torch(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """The same by torch's own kernels."""
    return functional.silu(functional.group_norm(x + added[:, None, None], groups, weight, bias, eps))


def joined(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """Into x: x + other + bias; rows (n, c) and (c)."""
    return x.copy_(x.float() + other.float() + bias)


def joined_by_torch(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """The same by torch's own kernels."""
    return x.add_(other).add_(bias)


def quicken(name: str, network: Any, fused: Fused) -> None:
    """Replace what is worth it in the network of that name, in place, on the device and in the precision it stays in: the
    blocks of the VAE, and the UNet's upsampling."""
    if name == "unet":
        _double(network, None)  # its pictures are small
    if name == "vae":
        _double(network, fused)
        _replace(network, lambda child: Residual(child, fused) if isinstance(child, ResnetBlock2D) else None)
        for part in (network.encoder, network.decoder):
            part.conv_norm_out, part.conv_act = NormSilu(part.conv_norm_out, fused), nn.Identity()


def _double(network: nn.Module, fused: Fused | None) -> None:
    _replace(network, lambda child: Doubled(child, fused) if isinstance(child, Upsample2D) else None)


def _replace(network: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            replacement = other(child)
            if replacement is not None:
                setattr(module, name, replacement)


class NormSilu(nn.Module):
    """Replaces a group norm and the SiLU after it; `before`: the bias of the convolution before it."""

    def __init__(self, norm: nn.GroupNorm, fused: Fused, before: Tensor | None = None) -> None:
        super().__init__()
        self.norm, self._fused = norm, fused
        self.register_buffer("before", torch.zeros_like(norm.bias) if before is None else before)

    def forward(self, x: Tensor) -> Tensor:
        norm, x = self.norm, x.contiguous(memory_format=torch.channels_last)
        given = x, self.before, norm.weight, norm.bias, norm.num_groups, norm.eps
        return self._fused.run(norm_silu, *given, plain=norm_silu_by_torch)


class Residual(nn.Module):
    """Replaces a `ResnetBlock2D` without a time embedding."""

    def __init__(self, block: ResnetBlock2D, fused: Fused) -> None:
        super().__init__()
        self._fused, self.shortcut = fused, block.conv_shortcut
        self.norm1, self.conv1 = NormSilu(block.norm1, fused), block.conv1
        self.norm2, self.conv2 = NormSilu(block.norm2, fused, block.conv1.bias), block.conv2
        bias = block.conv2.bias
        self.register_buffer("bias", bias if self.shortcut is None else bias + self.shortcut.bias)

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        made = _bare(self.conv2, self.norm2(_bare(self.conv1, self.norm1(x))))
        shortcut = x if self.shortcut is None else _bare(self.shortcut, x)
        count, channels, height, width = made.shape
        rows = self._fused.run(joined, _rows(made), _rows(shortcut), self.bias, plain=joined_by_torch)
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class Doubled(nn.Module):
    """Replaces an `Upsample2D`."""

    def __init__(self, up: Upsample2D, fused: Fused | None) -> None:
        super().__init__()
        self._fused = fused
        weight, bias = doubling.merged(up.conv)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor, output_size: None = None) -> Tensor:
        return doubling.doubled(x, self.weight, self.bias, self._fused)


def _bare(conv: Any, x: Tensor) -> Tensor:
    """The convolution without its bias."""
    return functional.conv2d(x, conv.weight, padding=conv.padding)


def _rows(x: Tensor) -> Tensor:
    """Pictures (n, c, h, w) as rows (n h w, c); a view of channels-last ones."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
