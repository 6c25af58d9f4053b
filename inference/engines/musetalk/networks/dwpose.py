"""DWPose: 133 keypoints of a person from one picture, as two rows of bins per point. CSPNeXt-L backbone, RTMCC head.

Architectures: RTMDet (arXiv 2212.07784) for the backbone, RTMPose (2303.07399) for the head, the gated attention unit of
2202.10447. Parameter names are those of the published `dw-ll_ucoco_384.pth`, whose ONNX version is not used: it needs another
runtime, has a single precision and cannot share torch's memory pool. Every module takes a batch and none loops over it.
`width` is the number of channels after the stem, 64 in the published file; tests use fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: The input size in pixels, and the output: bins per axis, two per pixel.
INPUT_HEIGHT, INPUT_WIDTH = 384, 288
POINTS = 133
BINS_X, BINS_Y = 2 * INPUT_WIDTH, 2 * INPUT_HEIGHT

#: Blocks of each stage; every stage but the last adds a block's input to its output.
_BLOCKS = (3, 6, 6, 3)
#: The picture is halved five times.
_CELLS = (INPUT_HEIGHT // 32) * (INPUT_WIDTH // 32)
_TOKEN, _KEY = 256, 128


class Convolution(nn.Module):
    """Convolution without bias, batch norm, SiLU; padded so that only the stride changes the size."""

    def __init__(self, inward: int, outward: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)), inplace=True)


class Separable(nn.Module):
    """A 5x5 convolution of each channel alone, then a mix of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = Convolution(channels, channels, 5, groups=channels)
        self.pointwise_conv = Convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return mixed


class Block(nn.Module):
    def __init__(self, channels: int, identity: bool) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels, 3)
        self.conv2 = Separable(channels)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv2(self.conv1(x))
        return made + x if self.identity else made


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CrossStage(nn.Module):
    """Half of the channels go through the blocks, half bypass them."""

    def __init__(self, channels: int, blocks: int, identity: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main_conv = Convolution(channels, half, 1)
        self.short_conv = Convolution(channels, half, 1)
        self.final_conv = Convolution(channels, channels, 1)
        self.blocks = nn.Sequential(*(Block(half, identity) for _ in range(blocks)))
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((self.blocks(self.main_conv(x)), self.short_conv(x)), 1)
        mixed: Tensor = self.final_conv(self.attention(both))
        return mixed


class PyramidPooling(nn.Module):
    """Max pooling over 5, 9 and 13 pixels, next to the input itself. Two poolings of 5 in a row equal one of 9, at less
    cost."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels // 2, 1)
        self.conv2 = Convolution(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.conv1(x)]
        for _ in range(3):
            levels.append(F.max_pool2d(levels[-1], 5, 1, 2))
        mixed: Tensor = self.conv2(torch.cat(levels, 1))
        return mixed


class CSPNeXt(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Sequential(Convolution(3, half, 3, stride=2), Convolution(half, half, 3), Convolution(half, width, 3))
        channels = [width * 2**level for level in range(5)]
        for number, blocks in enumerate(_BLOCKS, 1):
            last = number == len(_BLOCKS)
            parts: list[nn.Module] = [Convolution(channels[number - 1], channels[number], 3, stride=2)]
            parts += [PyramidPooling(channels[number])] if last else []
            self.add_module(f"stage{number}", nn.Sequential(*parts, CrossStage(channels[number], blocks, not last)))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.children():
            x = stage(x)
        return x


class ScaleNorm(nn.Module):
    """Divides a vector by its root mean square, clamped to at least 1e-5, and scales it by one learned number."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))
        self.scale = length**-0.5

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / size.clamp(min=1e-5) * self.g


class ResidualScale(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(length))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention among the points, with squared ReLU scores, plus a scaled residual."""

    def __init__(self, token: int, key: int) -> None:
        super().__init__()
        self.split = [2 * token, 2 * token, key]
        self.ln = ScaleNorm(token)
        self.uv = nn.Linear(token, sum(self.split), bias=False)
        self.gamma = nn.Parameter(torch.ones(2, key))
        self.beta = nn.Parameter(torch.zeros(2, key))
        self.o = nn.Linear(2 * token, token, bias=False)
        self.res_scale = ResidualScale(token)

    def forward(self, x: Tensor) -> Tensor:
        gate, value, base = F.silu(self.uv(self.ln(x))).split(self.split, dim=-1)
        query, key = base * self.gamma[0] + self.beta[0], base * self.gamma[1] + self.beta[1]
        weights = F.relu(query @ key.transpose(-1, -2) / self.split[2] ** 0.5).square()
        attended: Tensor = self.res_scale(x) + self.o(gate * (weights @ value))
        return attended


class Head(nn.Module):
    """One map per point, turned into one token, mixed with the others, then classified into bins along x and y."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, POINTS, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(_CELLS), nn.Linear(_CELLS, _TOKEN, bias=False))
        self.gau = GatedAttention(_TOKEN, _KEY)
        self.cls_x = nn.Linear(_TOKEN, BINS_X, bias=False)
        self.cls_y = nn.Linear(_TOKEN, BINS_Y, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.gau(self.mlp(self.final_layer(x).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)


class DWPose(nn.Module):
    """(n, 3, 384, 288) normalised RGB -> bins along x (n, 133, 576) and along y (n, 133, 768)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.backbone = CSPNeXt(width)
        self.head = Head(width * 16)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.head(self.backbone(pictures))
        return found

    @staticmethod
    def width_of(shapes: dict[str, Sequence[int]]) -> int:
        """The `width` of a checkpoint, from its tensors' shapes. KeyError: it is not DWPose's."""
        return shapes["backbone.stem.2.conv.weight"][0]
