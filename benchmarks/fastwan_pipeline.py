"""diffusers' own pipeline, to be measured against: our networks and inputs, its own order of work and its own decode.

It is put together in tests/fakes/wan_pipeline.py, where the tests of parity need it too.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image

from inference.engines.fastwan import models, sampling, shape
from media import write
from tests.fakes.wan_pipeline import pipeline

#: What the noise is drawn with, theirs and ours.
SEED = 1


def variants(found: models.Models) -> dict[str, Any]:
    """The pipelines on these networks, by name: A, A2 and, on a card, B."""
    made = {
        "A": pipeline(found.transformer, _autoencoder_in_32_bits(found)),
        "A2": pipeline(found.transformer, found.vae),
    }
    if found.device.type == "cuda":
        made["B"] = pipeline(_twin(found.transformer), found.vae, fast=True)
    return made


class Clock:
    """Seconds by stage; on a card a stage is over when the card is done."""

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
    """One request through diffusers: latents, decode, pictures to the host, H.264."""
    _reset(device)
    clock = Clock(device)
    found = latents(pipe, heard, picture, size)
    clock.done("steps")
    made = pictures(pipe, found)
    clock.done("decode")
    write.write(output, iter(made), rate=Fraction(shape.RATE), speech=None)
    clock.done("write")
    return {"wall_s": sum(clock.stages.values()), "stages": clock.stages, "peak_mib": _peak(device)}


@torch.inference_mode()
def latents(pipe: Any, heard: torch.Tensor, picture: Any, size: shape.Shape) -> torch.Tensor:
    """The three steps, from embeddings (1, 512, width) and the first picture, if there is one."""
    given = {} if picture is None else {"image": Image.fromarray(picture)}
    pipe.scheduler.generator = torch.Generator("cpu").manual_seed(SEED)
    return torch.as_tensor(
        pipe(
            prompt_embeds=heard.to(pipe.transformer.device),
            height=size.height,
            width=size.width,
            num_frames=size.frames,
            num_inference_steps=len(sampling.TIMES),
            guidance_scale=1.0,
            generator=pipe.scheduler.generator,
            output_type="latent",
            **given,
        ).frames
    )


@torch.inference_mode()
def pictures(pipe: Any, found: torch.Tensor) -> np.ndarray[Any, Any]:
    """(n, h, w, 3) uint8 on the host from latents."""
    autoencoder, config = pipe.vae, pipe.vae.config
    mean, std = (
        torch.tensor(each, device=found.device).view(1, -1, 1, 1, 1) for each in (config.latents_mean, config.latents_std)
    )
    kind = next(autoencoder.decoder.parameters()).dtype
    made = torch.as_tensor(autoencoder.decode((found.float() * std + mean).to(kind)).sample)[0]
    bytes_ = ((made.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.asarray(bytes_.permute(1, 2, 3, 0).contiguous().cpu())


def _autoencoder_in_32_bits(found: models.Models) -> Any:
    """The same VAE, its decoder too in 32 bits."""
    with torch.device("meta"):
        network = AutoencoderKLWan.from_config(dict(found.vae.config))
    state = {name: tensor.float() for name, tensor in found.vae.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval()


def _twin(network: Any) -> Any:
    """The same weights in another module, which can be compiled without the first one being."""
    with torch.device("meta"):
        other = WanTransformer3DModel.from_config(dict(network.config))
    other.load_state_dict(network.state_dict(), assign=True)
    other.rope = network.rope
    return other.eval()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else None
