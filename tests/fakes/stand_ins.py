"""Networks that stand in for the trained ones where the weights are not: what looks really finds faces, what makes mouths
paints a pattern whose place, size and time can be checked by eye and by a test.

`replaced(models)` gives models that see faces with OpenCV's finder and, instead of a mouth, paint: a chequerboard of 16-pixel
fields, its middle column marked white, and a green bar as long as what is heard differs from silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from inference.engines.musetalk import faces, landmarks, speech
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.networks.s3fd import STRIDES

#: Side of the chequerboard's fields, and the rows of the bar, of 256.
FIELD, BAR = 16, (200, 216)
RED, BLUE, WHITE, GREEN = (200, 40, 40), (40, 40, 200), (255, 255, 255), (40, 220, 40)

#: Points of a face as shares of the box that OpenCV's finder gives: jaw, brows, bridge of the nose, nostrils, eyes, mouth.
TEMPLATE = [
    *((0.14 + 0.72 * at / 16, 0.42 + 0.63 * (1 - (abs(at - 8) / 8) ** 2.4)) for at in range(17)),
    *((0.2 + 0.06 * at, 0.28) for at in range(5)),
    *((0.56 + 0.06 * at, 0.28) for at in range(5)),
    *((0.5, 0.4 + 0.07 * at) for at in range(4)),
    *((0.42 + 0.04 * at, 0.66) for at in range(5)),
    *((0.32 + 0.04 * at, 0.4) for at in range(6)),
    *((0.48 + 0.04 * at, 0.4) for at in range(6)),
    *((0.38 + 0.02 * at, 0.82) for at in range(12)),
    *((0.42 + 0.02 * at, 0.83) for at in range(8)),
]


class Finder(nn.Module):
    """Answers as S3FD does with the faces that OpenCV finds."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]
        self._finder = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))

    def forward(self, pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
        height, width = pictures.shape[2:]
        answers = []
        for stride in STRIDES:
            cells = (len(pictures), 1, -(-height // stride), -(-width // stride))
            logits = torch.cat([torch.full(cells, 20.0), torch.full(cells, -20.0)], dim=1)
            answers.append((logits, torch.zeros(cells[0], 4, *cells[2:])))
        for number, picture in enumerate(pictures):
            whole = picture + torch.tensor(faces.MEAN).view(3, 1, 1)
            grey = cv2.cvtColor(whole.permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy(), cv2.COLOR_RGB2GRAY)
            for box in self._finder.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=4, minSize=(40, 40)):
                _place(answers, number, tuple(float(edge) for edge in box))
        return answers


def _place(answers: list[tuple[Tensor, Tensor]], number: int, box: tuple[float, ...]) -> None:
    """Put one face (left, top, width, height) into the answer of the scale that suits it."""
    left, top, width, height = box
    at = min(range(len(STRIDES)), key=lambda scale: abs(np.log(width / (4 * STRIDES[scale]))))
    stride, anchor = STRIDES[at], 4.0 * STRIDES[at]
    x, y = left + width / 2, top + height / 2
    row, column = int(y // stride), int(x // stride)
    logits, places = answers[at]
    logits[number, :, row, column] = torch.tensor([-20.0, 20.0])
    away = ((x - (column + 0.5) * stride) / anchor / 0.1, (y - (row + 0.5) * stride) / anchor / 0.1)
    places[number, :, row, column] = torch.tensor([*away, np.log(width / anchor) / 0.2, np.log(height / anchor) / 0.2])


class Pointer(nn.Module):
    """Answers as DWPose does: the template, at the place in the picture where `faces.surroundings` puts a face."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        across, down = torch.zeros(len(pictures), 133, 576), torch.zeros(len(pictures), 133, 768)
        face = faces.surroundings(np.array([[0.0, 0.0, 1.0, 1.0]]))
        middle, size = (face[0, :2] + face[0, 2:]) / 2, (face[0, 2:] - face[0, :2]) * landmarks.PADDING
        first = np.arange(len(pictures) // 2)  # the mirrored second half says nothing
        for point, place in enumerate(TEMPLATE, landmarks.FACE.start):
            share = (np.array(place) - middle) / size + 0.5
            across[first, point, round(share[0] * 576)] = 1.0
            down[first, point, round(share[1] * 768)] = 1.0
        across[first, : landmarks.FACE.start, 0] = down[first, : landmarks.FACE.start, 0] = 1.0
        return across, down


class Loudness(nn.Module):
    """Stands in for the UNet: how far what is heard is from silence, in every number of its answer."""

    def __init__(self, silence: Tensor) -> None:
        super().__init__()
        self._silence = silence + speech.positions()

    def forward(self, latents: Tensor, heard: Tensor) -> Tensor:
        apart = (heard - self._silence).abs().mean(dim=(1, 2))
        return apart.view(-1, 1, 1, 1).expand(-1, 4, 32, 32)


@dataclass
class Painter:
    """Stands in for the VAE: encodes as it does, paints instead of decoding."""

    vae: Any

    @property
    def config(self) -> Any:
        return self.vae.config

    def encode(self, pictures: Tensor) -> Any:
        return self.vae.encode(pictures)

    def decode(self, latents: Tensor) -> Any:
        levels = (latents[:, 0, 0, 0] * self.config.scaling_factor).clamp(0, 1)
        painted = np.stack([board(float(level)) for level in levels])
        return SimpleNamespace(sample=torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 127.5 - 1)


def board(level: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(256, 256, 3): the chequerboard with a bar that is `level` (0 to 1) of its width."""
    y, x = np.mgrid[:256, :256] // FIELD
    made = np.where(((x + y) % 2 == 0)[..., None], np.array(RED, np.uint8), np.array(BLUE, np.uint8))
    made[:, 124:132] = WHITE
    made[BAR[0] : BAR[1], : round(256 * level)] = GREEN
    return np.asarray(made, np.uint8)


def replaced(models: Models) -> Models:
    """These models with everything replaced that would need training; the parser and the listener stay."""
    silence = speech.silence(models.whisper)
    return replace(models, unet=Loudness(silence), vae=Painter(models.vae), pose=Pointer(), detector=Finder())
