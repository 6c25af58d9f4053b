"""The single pass that makes a face speak: latents and speech through the UNet, its output through the VAE's decoder."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from errors import first_line
from inference.engines import card
from inference.engines.musetalk import speech
from inference.engines.musetalk.models import Models

log = logging.getLogger(__name__)

#: CPU_BATCH: the batch size without a GPU. With one, at most MAX_BATCH, and doubling must be FASTER by this factor.
CPU_BATCH, MAX_BATCH, FASTER = 4, 64, 1.03
#: The share of the free memory that a batch may take; the rest is for jobs being prepared at the same time.
MEMORY_SHARE = 0.5
#: How much a CUDA graph's frames may differ from a live pass, of 255.
SAME = 1

#: (latents, windows) -> faces, see `speak`.
Speak = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode(models: Models, faces: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """(n, 4, 32, 32) latents from (n, 3, 256, 256), -1 to 1: the posterior's mean, or a sample if `generator` is given. The
    published pipeline samples; training used the mean."""
    vae = models.vae
    pictures = faces.to(models.device, models.dtype, memory_format=torch.channels_last)
    found = vae.encode(pictures).latent_dist
    latents = found.mean if generator is None else found.sample(generator)
    return torch.as_tensor(latents * vae.config.scaling_factor)


def speak(models: Models, latents: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """(n, 256, 256, 3) uint8 RGB on the device, from latents (n, 8, 32, 32) and windows (n, 50, 384), see speech.py."""
    seen = latents.to(models.device, models.dtype, non_blocking=True, memory_format=torch.channels_last)
    return _made(models, seen, _placed(models, heard))


def _placed(models: Models, heard: torch.Tensor) -> torch.Tensor:
    """The windows plus the positional encoding, rounded to the UNet's dtype."""
    return heard.to(models.device, models.dtype, non_blocking=True) + _positions(models.device, models.dtype)


@functools.lru_cache(maxsize=4)
def _positions(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return speech.positions().to(device, dtype)


def _made(models: Models, latents: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
    made = models.unet(latents, placed) / models.vae.config.scaling_factor
    shares = (models.vae.decode(made).sample.float() / 2).add_(0.5)
    return shares.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1)


def measured(models: Models) -> int:
    """The fastest batch size that fits: measured in powers of two on a GPU, CPU_BATCH without one."""
    if models.device.type != "cuda":
        return CPU_BATCH
    best, fastest = 1, 0.0
    size = 1
    while size <= MAX_BATCH:
        try:
            rate, fits = _tried(models, size)
        except RuntimeError as error:
            if not card.is_full(error):
                raise
            break
        finally:
            torch.cuda.empty_cache()
        if not fits or rate < fastest * FASTER:
            break
        best, fastest, size = size, rate, 2 * size
    log.info("batches of %d make %.0f frames per second", best, fastest)
    return best


@torch.inference_mode()
def _tried(models: Models, size: int) -> tuple[float, bool]:
    """Faces per second, and whether the memory used is within the share."""
    free, _ = torch.cuda.mem_get_info(models.device)
    before = torch.cuda.memory_allocated(models.device)
    latents, heard = _anything(models, size)
    for _ in range(2):  # the first passes choose kernels, which takes more memory than running them
        speak(models, latents, heard)
    torch.cuda.synchronize(models.device)
    torch.cuda.reset_peak_memory_stats(models.device)
    began = time.monotonic()
    for _ in range(3):
        speak(models, latents, heard)
    torch.cuda.synchronize(models.device)
    took_s = time.monotonic() - began
    peak = torch.cuda.max_memory_allocated(models.device) - before
    return 3 * size / took_s, peak <= free * MEMORY_SHARE


def _anything(models: Models, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    latents = torch.randn(size, 8, 32, 32, device=models.device, dtype=models.dtype)
    return latents, torch.randn(size, 50, 384, device=models.device, dtype=models.dtype)


@dataclass(frozen=True)
class Studio:
    """The stream and memory pool shared by CUDA graphs that are never replayed at the same time: each reuses memory that
    another needs only during its replay, which requires the same stream as well as the same pool. Nothing else may run on that
    stream: a graph keeps using cuBLAS's workspace for it."""

    stream: torch.cuda.Stream
    memory: Any  # a `torch.cuda.graph_pool_handle()`

    @staticmethod
    def on(device: torch.device) -> Studio:
        return Studio(torch.cuda.Stream(device), torch.cuda.graph_pool_handle())


def recorded(models: Models, size: int, studio: Studio | None = None) -> Speak:
    """`speak`, which on a GPU replays CUDA graphs: one launch instead of a thousand, so that the decoding and encoding threads
    do not wait for the interpreter. There is one graph for `size` frames and one for each successive half, so that small
    batches (large frames, the end of a job) cost little more than they must; unused slots are computed too.

    A graph that cannot be captured, or whose output differs, is not used.
    """

    def live(latents: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        return speak(models, latents, heard)

    if models.device.type != "cuda":
        return live
    with torch.inference_mode():
        latents, heard = _anything(models, size)
        latents, placed = latents.contiguous(memory_format=torch.channels_last), _placed(models, heard)
    studio = studio or Studio.on(models.device)
    recordings: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
    for count in _halves(size):  # the largest first: the others reuse its memory
        try:
            recordings[count] = _recording(models, latents[:count], placed[:count], studio)
        except RuntimeError as error:
            log.warning("batches of %d could not be captured as a CUDA graph, they run live: %s", count, first_line(error))
            studio = Studio.on(models.device)  # torch may believe that its memory is still being captured into

    def play(new_latents: torch.Tensor, new_heard: torch.Tensor) -> torch.Tensor:
        count = len(new_latents)
        fitting = min((each for each in recordings if each >= count), default=None)
        if fitting is None:
            return live(new_latents, new_heard)
        graph, faces = recordings[fitting]
        latents[:count].copy_(new_latents, non_blocking=True)
        placed[:count].copy_(_placed(models, new_heard))
        graph.replay()
        return torch.clone(faces[:count])  # the next replay writes into the same place

    return play


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


@torch.inference_mode()
def _recording(
    models: Models, latents: torch.Tensor, placed: torch.Tensor, studio: Studio
) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """A graph that reads these two and writes the faces, (n, 256, 256, 3). Raises RuntimeError if it differs from a live
    pass."""
    here = torch.cuda.current_stream(models.device)
    studio.stream.wait_stream(here)
    with torch.cuda.stream(studio.stream):
        for _ in range(3):
            expected = _made(models, latents, placed)
    studio.stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with (
        torch.cuda.stream(here),
        torch.cuda.graph(graph, pool=studio.memory, stream=studio.stream),
    ):  # restores the stream if it fails
        faces = _made(models, latents, placed)
    graph.replay()
    torch.cuda.synchronize(models.device)
    apart = int((faces.int() - expected.int()).abs().max())
    if apart > SAME:
        raise RuntimeError(f"the graph's frames differ by {apart} of 255")
    return graph, faces
