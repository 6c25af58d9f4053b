"""Who we are to the orchestrator, and what the poller's loops tell one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What never changes while the program lives.

    engine       as ENGINE says; shape: the shape of its jobs, musetalk or fastwan
    gpu_class    the setting; None: NVML's own name
    batch_size   frames a batch, None when it is measured
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
    """What one loop says and another one passes on. Each attribute is set as a whole by one thread, so there is no lock."""

    #: The last claim: {"at", "result", "room"}; room: why there is none, None when there is.
    claim: dict[str, Any] = field(default_factory=dict)
    #: The last heartbeat: {"ok", "at", "latency_ms", "error"}; empty when there is no orchestrator.
    orchestrator: dict[str, Any] = field(default_factory=dict)
    #: Megabits a second of the last downloads.
    download_speed_mbps: float | None = None
    #: The name of the GPU to the orchestrator, once known.
    gpu_class: str = "cpu"
