"""The encoder's inputs: the box as a 256-pixel square, once with the lower half black and once whole.

As in the published pipeline's `vae.preprocess_img` and `get_latents_for_unet`: Lanczos on bytes, aspect ratio not preserved.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import torch

from inference.engines.musetalk import resize
from inference.engines.musetalk.boxes import Box

#: The side of a face that goes in and comes out.
SIDE = 256


def squares(pictures: Sequence[torch.Tensor], boxes: Sequence[Box]) -> torch.Tensor:
    """(n, 256, 256, 3) uint8 from pictures (h, w, 3) uint8 and the box of each, clipped to the picture."""
    inside = [box.cut(picture.shape[1], picture.shape[0]) for picture, box in zip(pictures, boxes, strict=True)]
    return torch.stack(
        [_square(picture[box.y1 : box.y2, box.x1 : box.x2]) for picture, box in zip(pictures, inside, strict=True)]
    )


def halves(faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's two inputs, each (n, 3, 256, 256) float32 from -1 to 1, from RGB (n, 256, 256, 3) uint8: with the lower
    half black, and whole."""
    whole = faces.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)  # for every byte the same as in 64 bits
    masked = whole.clone()
    masked[:, :, SIDE // 2 :] = -1
    return masked, whole


def _square(part: torch.Tensor) -> torch.Tensor:
    """Uses OpenCV itself if the picture is in host memory."""
    if part.device.type == "cpu":
        return torch.from_numpy(cv2.resize(part.numpy(), (SIDE, SIDE), interpolation=cv2.INTER_LANCZOS4))
    return resize.lanczos(part, SIDE, SIDE)


def together(masked: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The UNet's input (n, 8, 32, 32) from the two latents (n, 4, 32, 32), each already multiplied by the scaling factor."""
    return torch.cat([masked, whole], dim=1)
