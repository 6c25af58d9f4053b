"""BiSeNet: which part of the face each pixel of a 512x512 picture belongs to (arXiv 1808.00897, on a ResNet-18).

Parameter names are those of the published `79999_iter.pth`. That file also contains two training-only heads
(`UNUSED`), which are dropped. `width` is the number of channels of the first layer, 64 in the published file; tests use fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Classes in the order of CelebAMask-HQ: 0 background, 1 skin … 18 hat.
CLASSES = 19
#: Heads of the published file that are not used here.
UNUSED = ("conv_out16.", "conv_out32.")


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inward: int, outward: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Residual(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.downsample = nn.Sequential()
        if stride > 1 or inward != outward:
            self.downsample = nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward))

    def forward(self, x: Tensor) -> Tensor:
        made = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(self.downsample(x) + made, inplace=True)


class Resnet18(nn.Module):
    """Features at 1/8, 1/16 and 1/32 of the picture's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Residual(width, width, 1), Residual(width, width, 1))
        self.layer2 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(Residual(2 * width, 4 * width, 2), Residual(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(Residual(4 * width, 8 * width, 2), Residual(8 * width, 8 * width, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class Refinement(nn.Module):
    """Scales each channel by a gate computed from the means of all channels."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.conv = Convolution(inward, outward)
        self.conv_atten = nn.Conv2d(outward, outward, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))


class ContextPath(nn.Module):
    """Global context, upsampled to 1/8 of the picture's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnet = Resnet18(width)
        self.arm16 = Refinement(4 * width, 2 * width)
        self.arm32 = Refinement(8 * width, 2 * width)
        self.conv_head32 = Convolution(2 * width, 2 * width)
        self.conv_head16 = Convolution(2 * width, 2 * width)
        self.conv_avg = Convolution(8 * width, 2 * width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, thirty_second = self.resnet(x)
        whole = self.conv_avg(thirty_second.mean((2, 3), keepdim=True))
        up = self.arm32(thirty_second) + whole
        up = self.conv_head32(F.interpolate(up, sixteenth.shape[2:], mode="nearest"))
        up = self.arm16(sixteenth) + up
        return eighth, self.conv_head16(F.interpolate(up, eighth.shape[2:], mode="nearest"))


class Fusion(nn.Module):
    """Joins detail and context: x + x * gate(mean of x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = Convolution(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat((detail, context), 1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True)))))


class Output(nn.Module):
    def __init__(self, inward: int, between: int) -> None:
        super().__init__()
        self.conv = Convolution(inward, between)
        self.conv_out = nn.Conv2d(between, CLASSES, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv_out(self.conv(x))
        return scores


class BiSeNet(nn.Module):
    """(n, 3, h, w) with ImageNet's mean and deviation -> a score for each class of each pixel (n, 19, h, w)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.cp = ContextPath(width)
        self.ffm = Fusion(4 * width)
        self.conv_out = Output(4 * width, 4 * width)

    def forward(self, pictures: Tensor) -> Tensor:
        scores = self.conv_out(self.ffm(*self.cp(pictures)))
        return F.interpolate(scores, pictures.shape[2:], mode="bilinear", align_corners=True)

    @staticmethod
    def width_of(shapes: dict[str, Sequence[int]]) -> int:
        """The `width` of a checkpoint, from its tensors' shapes. KeyError: it is not BiSeNet's."""
        return shapes["cp.resnet.conv1.weight"][0]
