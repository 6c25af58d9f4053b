"""A job's data in the engine: its prepared inputs, the times of its stages, and its metrics.

The work itself is in engine.py.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.engine import Metrics
from inference.engines.fastwan import sampling, shape
from inference.engines.fastwan.models import Models
from media import write
from media.still import Picture

log = logging.getLogger(__name__)

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that is ready for the GPU. heard: the prompt's embeddings, if they were cached or computed on the CPU."""

    shape: shape.Shape
    picture: Picture | None
    prompt: str
    heard: Tensor | None
    known: bool
    noise: sampling.Noise
    told: dict[str, Any]
    took_s: float


@dataclass
class Times:
    """When each stage ended, in seconds of the monotonic clock."""

    began: float
    conditioned: float = 0.0
    denoised: float = 0.0
    first_frame: float = 0.0
    decoded: float = 0.0


def anything(size: shape.Shape) -> Prepared:
    """A job of this size, for warm-up."""
    return Prepared(
        shape=size,
        picture=np.full((size.height, size.width, 3), 127, np.uint8),
        prompt="a person",
        heard=None,
        known=False,
        noise=sampling.noise(0, size.latents),
        told={},
        took_s=0.0,
    )


def metrics(prepared: Prepared, written: write.Written, times: Times, loaded: Models) -> Metrics:
    """Metrics of a job whose video has just been written."""
    ended, device = time.monotonic(), loaded.device
    peak, reserved = _memory(device)
    log.info("wrote %d frames of %dx%d in %.1f s", written.frames, written.width, written.height, ended - times.began)
    return Metrics(
        frames=written.frames,
        fps=float(shape.RATE),
        width=written.width,
        height=written.height,
        duration_sec=written.duration_s,
        stage_times={
            "preprocessing": prepared.took_s + times.conditioned - times.began,
            "inference": times.decoded - times.conditioned,
            "postprocessing": ended - times.decoded,
        },
        peak_vram_mib=peak,
        extra={
            **prepared.told,
            "duration_sec": round(ended - times.began, 3),  # of the work: what the older workers mean by that name
            "fps": round(written.frames / (ended - times.began), 3),
            "video_sec": round(written.duration_s, 3),
            "video_fps": shape.RATE,
            "encoder": written.encoder,
            "plan": loaded.plan.name,
            "linears": loaded.plan.linears,
            "decoder": loaded.plan.decoder,
            "prompt_cache": "hit" if prepared.known else "miss",
            "denoise_s": round(times.denoised - times.conditioned, 3),
            "decode_s": round(times.decoded - times.denoised, 3),
            "first_frame_s": round(times.first_frame - times.began, 3),
            "reserved_vram_mib": reserved,
        },
    )


def _memory(device: torch.device) -> tuple[float | None, float | None]:
    """The most MiB of GPU memory that this job held, and that torch had reserved; some of the latter may be left from a
    larger job before."""
    if device.type != "cuda":
        return None, None
    found = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return round(found[0] / MIB, 1), round(found[1] / MIB, 1)
