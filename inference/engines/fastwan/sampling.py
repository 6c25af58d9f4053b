"""Distilled sampling: three steps from noise to a video's latents, with the image as the first frame. Pure functions.

Three-step distribution matching distillation as FastVideo trained it (FastWan 2.2, distill_dmd_t2v_5B.sh): the model is called
at t = 1000, 757 and 522, sigma is t / 1000 (no shift), there is no guidance, and fresh noise is added between steps. The image
conditions the video as in Wan 2.2 TI2V: its latent frame is passed in clean, at time 0, next to the noisy ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: The timesteps at which the model was distilled, out of 1000.
TIMES = (1000, 757, 522)
#: The older stack's sigmas: from a grid with shift 8, at the nearest timestep. For comparison only.
FASTVIDEO_SIGMAS = (1.0, 0.75676, 0.52174)
SIGMAS = tuple(time / 1000 for time in TIMES)

#: model(input (1, c, t, h, w), time of 1000) -> velocity of the same shape
Velocity = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Noise:
    """All randomness of a job, (1, c, t, h, w) float32 each: the initial noise, and the noise added after each step but the
    last. Drawn on the CPU by one generator, so that it depends only on the seed and the shape."""

    start: Tensor
    between: tuple[Tensor, ...]


def noise(seed: int, shape: tuple[int, ...]) -> Noise:
    """seed: any 64-bit integer."""
    generator = torch.Generator("cpu").manual_seed(seed)
    draws = [torch.randn(shape, generator=generator, dtype=torch.float32) for _ in TIMES]
    return Noise(draws[0], tuple(draws[1:]))


@torch.inference_mode()
def denoise(
    velocity: Velocity,
    drawn: Noise,
    image: Tensor | None,
    device: torch.device,
    stepped: Callable[[int], None],
    sigmas: tuple[float, ...] = SIGMAS,
) -> Tensor:
    """The video's latents (1, c, t, h, w) float32 on `device`; the first frame is `image` (1, c, 1, h, w), if given.

    stepped(steps done) is called after each step has finished on the device; what it raises propagates.
    """
    x = drawn.start.to(device)
    for step, (time, sigma) in enumerate(zip(TIMES, sigmas, strict=True)):
        given = x if image is None else torch.cat((image, x[:, :, 1:]), dim=2)
        clean = x - sigma * velocity(given, time).float()
        if step + 1 < len(TIMES):
            following = sigmas[step + 1]
            x = (1 - following) * clean + following * drawn.between[step].to(device)
        else:
            x = clean
        wait(device)
        stepped(step + 1)
    return x if image is None else torch.cat((image, x[:, :, 1:]), dim=2)


def wait(device: torch.device) -> None:
    """Wait until the GPU has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
