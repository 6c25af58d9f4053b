"""A decoder with a two-hundredth of the VAE's arithmetic (FASTWAN_DECODER=tiny): TAEHV for Wan 2.2 by Ollin Boer Bohan (MIT),
`taew2_2.pth`. Not exact: it was trained to look like the VAE's output, and is blurrier.

Plain 2D convolutions on single frames; the only temporal input is the previous frame, which each memory block also gets. So the
parts of a video may have any size, as for the VAE's decoder, whose interface this one has.
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

#: Channels of the three stages, each of which doubles height and width, and of the layers after them; and the frames that each
#: stage makes of one.
WIDTHS, GROWS = (256, 128, 64, 64), (1, 2, 2)
#: Prefix of the decoder's tensors in the file; the others are the encoder's.
HALF = "decoder."
LATENTS, COLOURS = 48, 12  # each output pixel holds four


class Memory(nn.Module):
    """A block that sees a frame and the previous one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(True), _conv(width, width), nn.ReLU(True), _conv(width, width)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return functional.relu(self.conv(torch.cat((x, before), 1)).add_(x), inplace=True)


class Grow(nn.Module):
    """Makes `times` frames of each."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return made.reshape(-1, *x.shape[1:])


class Softened(nn.Module):
    """Soft-clips latents to -3 … 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def network() -> nn.Sequential:
    """The network, with the published layer numbering; nothing in it depends on the frame size."""
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
    """Latents to frames, with the interface of decoder.Decoder."""

    def __init__(self, net: nn.Sequential) -> None:
        self._net = net
        self._dtype = next(net.parameters()).dtype

    def scaled(self, latents: Tensor) -> Tensor:
        """`part` takes normalised latents unchanged."""
        return latents.to(self._dtype)

    @torch.inference_mode()
    def part(self, latents: Tensor, past: Past) -> Tensor:
        """latents (1, 48, t, h, w) -> frames (1, 3, 1 or 4 t, 16 h, 16 w), about -1 to 1. Pass each part the same `past`."""
        x = latents[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)
        layers = list(self._net)
        for number, layer in enumerate(layers):
            if isinstance(layer, Memory):
                x = layer(x, _shifted(x, number, past))
            elif isinstance(layer, nn.Upsample):  # after the 1x1 Grow, which is cheaper before upsampling
                x = layer(layers[number + 1](x))
            elif not isinstance(layer, Grow):
                x = layer(x)
        pictures = functional.pixel_shuffle(x, 2)
        if past.first:
            pictures = pictures[PICTURES - 1 :]
        past.first = False
        return (pictures * 2 - 1).transpose(0, 1)[None]


def _shifted(x: Tensor, number: int, past: Past) -> Tensor:
    """For each frame the previous one; zeros for the first."""
    before = past.frames.get(number)
    if before is None:
        before = torch.zeros_like(x[:1])
    past.frames[number] = x[-1:].clone(memory_format=torch.preserve_format)
    return torch.cat((before, x[:-1]))


def _conv(width: int, after: int, **given: Any) -> nn.Conv2d:
    return nn.Conv2d(width, after, 3, padding=1, **given)
