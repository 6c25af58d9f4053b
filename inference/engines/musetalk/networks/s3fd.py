"""S3FD: face detection at six scales, in pictures of any size (arXiv 1708.05237).

Parameter names are those of the published `s3fd-619a316812.pth`. `faces.py` decodes the boxes. `width` is the number of
channels of the first layers, 64 in the published file; tests use fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: The stride in pixels of each of the six outputs.
STRIDES = (4, 8, 16, 32, 64, 128)

#: VGG's groups: the number of layers, and their channels in multiples of `width`.
_GROUPS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
#: Layers whose channels are normalised to a learned length before their output, and its initial value in training.
_NORMED = {"conv3_3": 10.0, "conv4_3": 8.0, "conv5_3": 5.0}
#: Layers with an output, in the order of `STRIDES`, and their channels in multiples of `width`.
_ANSWERS = (("conv3_3_norm", 4), ("conv4_3_norm", 8), ("conv5_3_norm", 8), ("fc7", 16), ("conv6_2", 8), ("conv7_2", 4))

Answer = tuple[Tensor, Tensor]


class Normed(nn.Module):
    """Normalises the channels of each pixel to a learned length. In float32: float16 overflows at a sum of 65,504."""

    def __init__(self, channels: int, length: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), length))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=1, keepdim=True) + 1e-10
        return (wide / length * self.weight.float()[:, None, None]).to(x.dtype)


class S3FD(nn.Module):
    """(n, 3, h, w), means subtracted -> six pairs: background and face logits (n, 2, hi, wi), box offsets (n, 4, hi, wi)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        inward = 3
        for group, (layers, widths) in enumerate(_GROUPS, 1):
            for layer in range(1, layers + 1):
                self.add_module(f"conv{group}_{layer}", nn.Conv2d(inward, widths * width, 3, padding=1))
                inward = widths * width
        self.fc6 = nn.Conv2d(8 * width, 16 * width, 3, padding=3)
        self.fc7 = nn.Conv2d(16 * width, 16 * width, 1)
        self.conv6_1 = nn.Conv2d(16 * width, 4 * width, 1)
        self.conv6_2 = nn.Conv2d(4 * width, 8 * width, 3, stride=2, padding=1)
        self.conv7_1 = nn.Conv2d(8 * width, 2 * width, 1)
        self.conv7_2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        channels = {name: widths * width for name, widths in _ANSWERS}
        for name, length in _NORMED.items():
            self.add_module(f"{name}_norm", Normed(channels[f"{name}_norm"], length))
        for position, (name, _) in enumerate(_ANSWERS):
            # The finest scale has three background logits: its small anchors see background a thousand times as often as faces.
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels[name], 4 if position == 0 else 2, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels[name], 4, 3, padding=1))

    def forward(self, pictures: Tensor) -> list[Answer]:
        x, sources = pictures, []
        for group, (layers, _) in enumerate(_GROUPS, 1):
            for layer in range(1, layers + 1):
                x = F.relu(self.get_submodule(f"conv{group}_{layer}")(x), inplace=True)
            if f"conv{group}_{layers}" in _NORMED:
                sources.append(self.get_submodule(f"conv{group}_{layers}_norm")(x))
            x = F.max_pool2d(x, 2, 2)
        x = F.relu(self.fc7(F.relu(self.fc6(x), inplace=True)), inplace=True)
        sources.append(x)
        x = F.relu(self.conv6_2(F.relu(self.conv6_1(x), inplace=True)), inplace=True)
        sources.append(x)
        sources.append(F.relu(self.conv7_2(F.relu(self.conv7_1(x)))))
        return [self._answer(name, source) for (name, _), source in zip(_ANSWERS, sources, strict=True)]

    def _answer(self, name: str, source: Tensor) -> Answer:
        logits: Tensor = self.get_submodule(f"{name}_mbox_conf")(source)
        if logits.shape[1] == 4:
            logits = torch.cat((logits[:, :3].amax(1, keepdim=True), logits[:, 3:]), 1)
        return logits, self.get_submodule(f"{name}_mbox_loc")(source)

    @staticmethod
    def width_of(shapes: dict[str, Sequence[int]]) -> int:
        """The `width` of a checkpoint, from its tensors' shapes. KeyError: it is not S3FD's."""
        return shapes["conv1_1.weight"][0]
