"""A decoder with a two-hundredth of the VAE's arithmetic, where the user has chosen it (FASTWAN_DECODER=tiny): TAEHV for Wan
2.2 by Ollin Boer Bohan (MIT), `taew2_2.pth`. Not exact: it was trained to look like the VAE's pictures, and is blurrier.

Plain convolutions over single pictures; the only thing they know of time is the picture before, which each memory block gets
beside its own. So the parts of a video may be of any size, as for the VAE's decoder, whose interface this one has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from errors import EngineFailed
from inference.engines import checkpoints
from inference.engines.fastwan import layout
from inference.engines.fastwan.decoder import PICTURES, Past

#: Channels of the three stages, each of which doubles the sides, and of what follows; and the pictures that each stage makes of
#: one.
WIDTHS, GROWS = (256, 128, 64, 64), (1, 2, 2)
#: How the names of our half of the file begin; the other half encodes.
HALF = "decoder."
LATENTS, COLOURS = 48, 12  # a pixel of what comes out holds four


class Memory(nn.Module):
    """Sees a picture and the one before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(True), _conv(width, width), nn.ReLU(True), _conv(width, width)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return functional.relu(self.conv(torch.cat((x, before), 1)).add_(x), inplace=True)


class Grow(nn.Module):
    """Makes `times` pictures of each."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return made.reshape(-1, *x.shape[1:])


class Softened(nn.Module):
    """Latents beyond 3 are drawn in."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def network() -> nn.Sequential:
    """With the published numbering; nothing in it depends on the size of a picture."""
    layers: list[nn.Module] = [Softened(), _conv(LATENTS, WIDTHS[0]), nn.ReLU(True)]
    for width, after, times in zip(WIDTHS, WIDTHS[1:], GROWS, strict=False):
        layers += [Memory(width), Memory(width), Memory(width)]
        layers += [nn.Upsample(scale_factor=2), Grow(width, times), _conv(width, after, bias=False)]
    return nn.Sequential(*layers, nn.ReLU(True), _conv(WIDTHS[-1], COLOURS))


def load(models: Path, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """The decoder's half of the published file. Raises EngineFailed, one line."""
    path = models / layout.TINY
    state = checkpoints.read(path, layout.remedy(models, path))
    half = {name[len(HALF) :]: each for name, each in state.items() if name.startswith(HALF)}

    def wrong(what: str) -> EngineFailed:
        return EngineFailed(layout.line(models, path, f"is for a different network: {what}"))

    return checkpoints.filled(network, half, wrong).to(device, dtype, memory_format=torch.channels_last)


class Decoder:
    """Latents to pictures, as decoder.Decoder does it."""

    def __init__(self, net: nn.Sequential) -> None:
        self._net = net
        self._dtype = next(net.parameters()).dtype

    def scaled(self, latents: Tensor) -> Tensor:
        """Normalised latents as `part` wants them: as they are."""
        return latents.to(self._dtype)

    @torch.inference_mode()
    def part(self, latents: Tensor, past: Past) -> Tensor:
        """latents (1, 48, t, h, w) -> pictures (1, 3, 1 or 4 t, 16 h, 16 w), about -1 to 1. `past` goes from part to part."""
        x = latents[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)
        layers = list(self._net)
        for number, layer in enumerate(layers):
            if isinstance(layer, Memory):
                x = layer(x, _shifted(x, number, past))
            elif isinstance(layer, nn.Upsample):  # after what grows: that looks at single pixels, of which there are fewer yet
                x = layer(layers[number + 1](x))
            elif not isinstance(layer, Grow):
                x = layer(x)
        pictures = functional.pixel_shuffle(x, 2)
        if past.first:
            pictures = pictures[PICTURES - 1 :]
        past.first = False
        return (pictures * 2 - 1).transpose(0, 1)[None]


def _shifted(x: Tensor, number: int, past: Past) -> Tensor:
    """For each picture the one before it; nothing was before the first."""
    before = past.frames.get(number)
    if before is None:
        before = torch.zeros_like(x[:1])
    past.frames[number] = x[-1:].clone(memory_format=torch.preserve_format)
    return torch.cat((before, x[:-1]))


def _conv(width: int, after: int, **given: Any) -> nn.Conv2d:
    return nn.Conv2d(width, after, 3, padding=1, **given)
