"""How busy a GPU is while something runs: the mean of NVML's utilization, the share of time in which any kernel ran."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from telemetry import gpu

#: Seconds between two readings; the driver itself averages over about as much.
EVERY_S = 0.2


@contextmanager
def sampled(uuid: str) -> Iterator[list[float]]:
    """Collects readings (percent) of the GPU of this UUID until the block is left; none if the driver gives none."""
    found: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(EVERY_S):
            found.extend(card["utilization_gpu"] for card in gpu.gauges(uuid) if card["utilization_gpu"] is not None)

    thread = threading.Thread(target=sample, name="busy", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
