"""Our identity for the orchestrator, and the data shared by the poller's loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What never changes while the program runs.

    engine       the ENGINE setting; shape: the shape of its jobs, musetalk or fastwan
    gpu_class    the setting; None: the name from NVML
    batch_size   frames per batch, None if it is measured
    """

    worker_id: str
    worker_type: str
    mode: str
    provider: str
    engine: str
    shape: str
    version: str
    data_dir: Path
    gpus: str = "all"
    gpu_class: str | None = None
    capacity: int = 1
    config_label: str = "default"
    batch_size: int | None = None


@dataclass
class News:
    """Data from one loop for another. Each attribute is replaced as a whole by one thread, so no lock is needed."""

    #: The last claim: {"at", "result", "room"}; room: why there is no capacity, None if there is.
    claim: dict[str, Any] = field(default_factory=dict)
    #: The last heartbeat: {"ok", "at", "latency_ms", "error"}; empty when there is no orchestrator.
    orchestrator: dict[str, Any] = field(default_factory=dict)
    #: Megabits per second of recent downloads.
    download_speed_mbps: float | None = None
    #: The GPU's name for the orchestrator, once known.
    gpu_class: str = "cpu"
