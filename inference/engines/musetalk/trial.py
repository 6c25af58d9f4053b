"""A dummy job through all of the networks, so that no real job pays the GPU's one-time costs."""

from __future__ import annotations

import numpy as np
import torch

from inference.engines.musetalk import blend, build, faces, landmarks, mouths, speech
from inference.engines.musetalk.avatar import Maker
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.masks import Mask
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.params import Params
from inference.engines.musetalk.pictures import View
from inference.engines.musetalk.room import Room

#: The dummy frame, 16:9 like most, and a face in it.
WIDTH, HEIGHT, FACE = 1280, 720, Box(500, 200, 760, 540)


@torch.inference_mode()
def run(models: Models, speak: mouths.Speak, looking: Room, speaking: Room) -> None:
    """Find faces in grey frames, encode their middle, hear silence, generate mouths, and blend them in."""
    maker, params = Maker(), Params()
    pictures = torch.full((looking.size, HEIGHT, WIDTH, 3), 128, dtype=torch.uint8, device=models.device)
    regions = np.tile(np.array([300.0, 0.0, 960.0, 720.0]), (looking.size, 1))
    looking.parts(looking.size, lambda part: faces.detect(models.detector, pictures[part], dtype=models.looking_dtype))
    looking.parts(looking.size, lambda part: landmarks.locate(models.pose, pictures[part], regions[part], models.looking_dtype))
    views = [View(0, 0, picture) for picture in pictures[: looking.size]]
    build.add(maker, views, [FACE] * len(views), (WIDTH, HEIGHT), models, params, looking, None)
    window = speech.silence(models.whisper)

    def once(part: slice) -> torch.Tensor:
        count = part.stop - part.start
        return speak(torch.zeros(count, 8, 32, 32), window.expand(count, -1, -1))

    made = torch.cat(speaking.parts(speaking.size, once))
    mask = Mask(FACE.x1, FACE.y1 + FACE.height // 2, np.full((FACE.height // 2, FACE.width), 255, np.uint8))
    layout = blend.layout([FACE] * len(made), [mask] * len(made), models.device)
    blend.patches(torch.zeros((*layout.alpha.shape, 3), dtype=torch.uint8, device=models.device), made, layout).cpu()
