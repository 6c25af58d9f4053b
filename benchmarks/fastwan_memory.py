"""GPU memory of one contestant of benchmarks/fastwan.py, whatever else is on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from inference.engines.fastwan.decoder import Decoder
from inference.engines.fastwan.engine import Engine


def peak_mib(run: Callable[[], Any], contestant: Any, device: torch.device) -> float | None:
    """The most that its own networks and one request through them hold at once; None without a GPU."""
    if device.type != "cuda":
        return None
    own_bytes: int = sum({each.data_ptr(): each.nbytes for each in weights(contestant)}.values())
    torch.cuda.empty_cache()
    before_bytes = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    taken_bytes: int = torch.cuda.max_memory_allocated(device) - before_bytes
    return (own_bytes + taken_bytes) / 2**20


def weights(contestant: Any) -> Iterator[Tensor]:
    """All weights kept between requests: a pipeline's, or our engine's, whose decoder has some of its own."""
    networks = [contestant.transformer, contestant.vae] if not isinstance(contestant, Engine) else []
    if isinstance(contestant, Engine):
        loaded = contestant._loaded
        networks = [each for each in (loaded.transformer, loaded.vae, loaded.tiny) if each is not None]
        if isinstance(contestant._decoder, Decoder):
            yield from contestant._decoder.merged
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()
