"""The one pass that makes a face speak: latents and speech through the UNet, the answer through the VAE's decoder."""

from __future__ import annotations

import torch

from inference.engines.musetalk import speech
from inference.engines.musetalk.models import Models


def encode(models: Models, faces: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """(n, 4, 32, 32) latents from (n, 3, 256, 256), -1 to 1: the middle of what they may be, or a sample if `generator` is
    given, which is what the published pipeline takes (training took the middle)."""
    vae = models.vae
    pictures = faces.to(models.device, models.dtype, memory_format=torch.channels_last)
    found = vae.encode(pictures).latent_dist
    latents = found.mean if generator is None else found.sample(generator)
    return torch.as_tensor(latents * vae.config.scaling_factor)


def speak(models: Models, latents: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """(n, 256, 256, 3) uint8 RGB on the device, from latents (n, 8, 32, 32) and windows (n, 50, 384), see speech.py."""
    seen = latents.to(models.device, models.dtype, non_blocking=True, memory_format=torch.channels_last)
    placed = heard.to(models.dtype) + positions(models)
    made = models.unet(seen, placed) / models.vae.config.scaling_factor
    shares = models.vae.decode(made).sample.float() / 2 + 0.5
    return (shares.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def positions(models: Models) -> torch.Tensor:
    """The table that is added to every window, rounded to the UNet's numbers."""
    return speech.positions().to(models.device, models.dtype, non_blocking=True)
