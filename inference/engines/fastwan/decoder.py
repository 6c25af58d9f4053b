"""A streaming VAE decoder: latent frames in, video frames out, as many at a time as memory allows.

Our own forward pass over diffusers' weights. Every causal convolution caches the last two frames of its input, so that the next
part continues where the last one ended: the frames are the same for any size of part, up to rounding. The first latent frame is
a part of its own and gives one frame; every other one gives four. Upsampling and the convolution after it are one, see
../doubling.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inference.engines import doubling
from inference.engines.fastwan.elementwise import norm_silu
from inference.engines.fused import Fused

#: Frames that a causal convolution caches: its kernel reaches two back.
PAST = 2
#: Frames per latent frame, and pixels per latent pixel along one side.
PICTURES, PIXELS = 4, 16


@dataclass
class Past:
    """The cached frames, by convolution; `first`: nothing has been decoded yet."""

    frames: dict[int, Tensor] = field(default_factory=dict)
    first: bool = True


class Decoder:
    """Decodes with one VAE. Its convolution weights are converted to channels-last, which the GPU's kernels need."""

    def __init__(self, vae: Any, fused: Fused | None = None) -> None:
        self._vae, self._net, self._fused = vae, vae.decoder, fused or Fused()
        last = {id(up): up.upsampler.resample[1] for up in self._net.up_blocks if up.upsampler is not None}
        self._doubling = {up: doubling.merged(conv) for up, conv in last.items()}
        for conv in vae.decoder.modules():
            if isinstance(conv, torch.nn.Conv3d):
                conv.to(memory_format=torch.channels_last_3d)

    @property
    def merged(self) -> list[Tensor]:
        """Weights derived from the VAE's and kept in addition to them."""
        return [weight for weight, _ in self._doubling.values()]

    def scaled(self, latents: Tensor) -> Tensor:
        """Normalised latents (1, c, t, h, w) float32 -> what `part` takes."""
        mean, std = spread(self._vae, latents.device)
        return (latents * std + mean).to(next(self._net.parameters()).dtype)

    @torch.inference_mode()
    def part(self, latents: Tensor, past: Past) -> Tensor:
        """latents (1, c, t, h, w), in the VAE's own scale, in the decoder's precision -> frames (1, 3, 1 or 4 t, 16 h,
        16 w), about -1 to 1. The first part has one latent frame; pass the same `past` to every part."""
        net = self._net
        x = self._vae.post_quant_conv(latents).contiguous(memory_format=torch.channels_last_3d)
        x = self._over_time(net.conv_in, x, past)
        middle = net.mid_block
        x = self._residual(middle.resnets[0], x, past)
        for attention, after in zip(middle.attentions, middle.resnets[1:], strict=True):
            x = self._residual(after, attention(x), past)
        for up in net.up_blocks:
            x = self._up(up, x, past)
        x = self._over_time(net.conv_out, self._norm(x, net.norm_out.gamma), past)
        past.first = False
        return _unfolded(x)

    def _up(self, up: Any, x: Tensor, past: Past) -> Tensor:
        shortcut = x
        for block in up.resnets:
            x = self._residual(block, x, past)
        if up.upsampler is None:
            return x
        if up.upsampler.mode == "upsample3d" and not past.first:
            x = _interleaved(self._over_time(up.upsampler.time_conv, x, past))
        return _repeated(_doubled(x, self._doubling[id(up)]), shortcut, up.avg_shortcut, past.first)

    def _residual(self, block: Any, x: Tensor, past: Past) -> Tensor:
        shortcut = x if isinstance(block.conv_shortcut, torch.nn.Identity) else self._over_time(block.conv_shortcut, x, past)
        x = self._over_time(block.conv1, self._norm(x, block.norm1.gamma), past)
        x = self._over_time(block.conv2, self._norm(x, block.norm2.gamma), past)
        return x.add_(shortcut)

    def _norm(self, x: Tensor, gamma: Tensor) -> Tensor:
        """The norm over the channels of (1, c, t, h, w), then SiLU; a pixel's channels are a row."""
        rows = x.permute(0, 2, 3, 4, 1).contiguous()  # a view, unless a convolution returned another layout
        made = self._fused.run(norm_silu, rows.view(-1, rows.shape[-1]), gamma.flatten())
        return made.view(rows.shape).permute(0, 4, 1, 2, 3)

    @staticmethod
    def _over_time(conv: Any, x: Tensor, past: Past) -> Tensor:
        """A causal convolution: prepends the two cached frames, or zeros if there are none."""
        if conv.kernel_size[0] == 1:
            return functional.conv3d(x, conv.weight, conv.bias)
        before = past.frames.get(id(conv))
        if before is None:
            before = x.new_zeros((*x.shape[:2], PAST, *x.shape[3:]))
        x = torch.cat((before, x), dim=2).contiguous(memory_format=torch.channels_last_3d)
        past.frames[id(conv)] = x[:, :, -PAST:].clone(memory_format=torch.preserve_format)
        sides = (conv.kernel_size[1] // 2, conv.kernel_size[2] // 2)
        return functional.conv3d(x, conv.weight, conv.bias, padding=(0, *sides))


def spread(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, c, 1, 1, 1) of the VAE's latents before normalisation."""
    mean, std = (
        torch.tensor(found, device=device).view(1, -1, 1, 1, 1) for found in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def parts(frames: int, chunk: int) -> Iterator[slice]:
    """The parts in which latent frames are decoded: the first alone, then `chunk` at a time."""
    yield slice(0, 1)
    for first in range(1, frames, chunk):
        yield slice(first, min(first + chunk, frames))


def _unfolded(x: Tensor) -> Tensor:
    """(1, 12, t, h, w), a pixel's four places in the channels -> (1, 3, t, 2 h, 2 w)."""
    _, channels, frames, height, width = x.shape
    x = x.reshape(1, channels // 4, 2, 2, frames, height, width).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(1, channels // 4, frames, 2 * height, 2 * width)


def _interleaved(x: Tensor) -> Tensor:
    """(1, 2 c, t, h, w) -> (1, c, 2 t, h, w): each frame becomes two, one from each half of the channels."""
    _, channels, frames, height, width = x.shape
    rows = x.permute(0, 2, 3, 4, 1).view(1, frames, height, width, 2, channels // 2).permute(0, 1, 4, 2, 3, 5)
    return rows.reshape(1, 2 * frames, height, width, channels // 2).permute(0, 4, 1, 2, 3)


def _doubled(x: Tensor, merged: doubling.Merged) -> Tensor:
    """(1, c, t, h, w) -> (1, out, t, 2 h, 2 w)."""
    return doubling.doubled(x[0].transpose(0, 1), *merged).transpose(0, 1)[None]


def _repeated(made: Tensor, x: Tensor, shortcut: Any, first: bool) -> Tensor:
    """Wan 2.2's parameter-free shortcut, added in place to `made`: the channels of x (1, c, t, h, w) are spread over the new
    places in time, height and width. One place at a time, so that the spread tensor is never materialised."""
    times, sides = shortcut.factor_t, shortcut.factor_s
    every = times * sides * sides // shortcut.repeats  # channels of x that become one
    for place in range(times - 1 if first else 0, times):
        frames = slice(None) if first else slice(place, None, times)
        for number in range(sides * sides):
            down, right = divmod(number, sides)
            channel = (place * sides * sides + number) // shortcut.repeats
            made[:, :, frames, down::sides, right::sides] += x[:, channel::every]
    return made
