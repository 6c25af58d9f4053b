"""diffusers' own pipeline, as the baseline: our networks and inputs, its own order of work and its own decode.

It is built in tests/fakes/wan_pipeline.py, which the parity tests use too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image

from inference.engines.fastwan import models, sampling, shape
from media import write
from tests.fakes.wan_pipeline import pipeline

#: What the noise is drawn with, theirs and ours.
SEED = 1


def variants(found: models.Models) -> dict[str, Any]:
    """The pipelines on these networks, by name: A, A2 and, on a card, B. Each has its own VAE in diffusers' memory layout: our
    decoder changes the layout of the one that it is given."""
    made = {
        "A": pipeline(found.transformer, copied(found.vae, torch.float32)),
        "A2": pipeline(found.transformer, copied(found.vae)),
    }
    if found.device.type == "cuda":
        made["B"] = pipeline(_twin(found.transformer), copied(found.vae), fast=True)
    return made


class Clock:
    """Seconds by stage; on a GPU a stage ends when the GPU is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stages: dict[str, float] = {}
        self._since = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()

    def done(self, stage: str) -> None:
        now = self._now()
        self.stages[stage] = now - self._since
        self._since = now


def run(pipe: Any, heard: torch.Tensor, picture: Any, size: shape.Shape, device: torch.device, output: Path) -> dict[str, Any]:
    """One request through diffusers: the image, the steps, the decode, pictures to the host, H.264."""
    torch.backends.cudnn.benchmark = False  # as whoever uses diffusers has it
    clock = Clock(device)
    found = latents(pipe, heard, picture, size, lambda: clock.done("image"))
    clock.done("steps")
    made = decoded(pipe, found)
    clock.done("decode")
    shown = made.cpu().numpy()
    clock.done("to host")
    write.write(output, iter(shown), rate=Fraction(shape.RATE), speech=None)
    clock.done("write")
    return {"wall_s": sum(clock.stages.values()), "stages": clock.stages}


@torch.inference_mode()
def latents(
    pipe: Any, heard: torch.Tensor, picture: Any, size: shape.Shape, begun: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """The three steps, from embeddings (1, 512, width) and the first picture, if there is one. begun() is called when the image
    is encoded, before the first step."""
    given = {} if picture is None else {"image": Image.fromarray(picture)}
    pipe.scheduler.generator = torch.Generator("cpu").manual_seed(SEED)
    before_steps = [begun]
    hook = pipe.transformer.register_forward_pre_hook(lambda *_: before_steps.pop()() if before_steps else None)
    try:
        made = pipe(
            prompt_embeds=heard.to(pipe.transformer.device),
            height=size.height,
            width=size.width,
            num_frames=size.frames,
            num_inference_steps=len(sampling.TIMES),
            guidance_scale=1.0,
            generator=pipe.scheduler.generator,
            output_type="latent",
            **given,
        )
    finally:
        hook.remove()
    return torch.as_tensor(made.frames)


@torch.inference_mode()
def decoded(pipe: Any, found: torch.Tensor) -> torch.Tensor:
    """(n, h, w, 3) uint8 on the device from latents."""
    autoencoder, config = pipe.vae, pipe.vae.config
    mean, std = (
        torch.tensor(each, device=found.device).view(1, -1, 1, 1, 1) for each in (config.latents_mean, config.latents_std)
    )
    kind = next(autoencoder.decoder.parameters()).dtype
    made = torch.as_tensor(autoencoder.decode((found.float() * std + mean).to(kind)).sample)[0]
    bytes_ = ((made.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return bytes_.permute(1, 2, 3, 0).contiguous()


def copied(autoencoder: Any, dtype: torch.dtype | None = None) -> Any:
    """The same VAE with weights of its own; all of them in `dtype`, if it is given."""
    with torch.device("meta"):
        network = AutoencoderKLWan.from_config(dict(autoencoder.config))
    state = {name: each.detach().to(dtype or each.dtype, copy=True) for name, each in autoencoder.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _twin(network: Any) -> Any:
    """The same weights in another module, which can be compiled without the first one being."""
    with torch.device("meta"):
        other = WanTransformer3DModel.from_config(dict(network.config))
    other.load_state_dict(network.state_dict(), assign=True)
    other.rope = network.rope
    return other.eval()
