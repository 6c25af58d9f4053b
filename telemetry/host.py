"""What the machine under the worker is: processor, memory, disk, and what is installed on it.

Inside a container the kernel's own numbers are the host's; what the container may use is in its control group (cgroup), and
the smaller of the two counts. GB here are 2**30 bytes, as the orchestrator has always been told.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
from pathlib import Path
from typing import Any

import psutil

CGROUP = Path("/sys/fs/cgroup")
GB = 2**30


def system_info(data_dir: Path, download_speed_mbps: float | None, cgroup: Path = CGROUP) -> dict[str, Any]:
    """The heartbeat's `system_info`. data_dir: its disk is the one that counts; it need not exist yet.

    download_speed_mbps: megabits a second of the last downloads, None when nothing was measured. Cheap enough for every beat.
    """
    total_bytes, available_bytes = memory_bytes(cgroup)
    disk = psutil.disk_usage(str(_existing(data_dir)))
    return {
        **_processor(cgroup),
        "ram_total_gb": round(total_bytes / GB, 2),
        "ram_available_gb": round(available_bytes / GB, 2),
        "disk_total_gb": round(disk.total / GB, 2),
        "disk_free_gb": round(disk.free / GB, 2),
        "download_speed_mbps": None if download_speed_mbps is None else round(download_speed_mbps, 2),
    }


def memory_bytes(cgroup: Path = CGROUP) -> tuple[int, int]:
    """Memory that we may use in all, and what of it is free or could be freed at once."""
    memory = psutil.virtual_memory()
    for limit_file, used_file, cache_key in (
        ("memory.max", "memory.current", "inactive_file"),  # version 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),  # version 1
    ):
        limit, used = _number(cgroup / limit_file), _number(cgroup / used_file)
        if limit is None or used is None or limit >= memory.total:  # version 1 says "no limit" with a huge number
            continue
        cache = _keyed_number((cgroup / limit_file).with_name("memory.stat"), cache_key)
        return limit, max(0, min(memory.available, limit - used + cache))
    return memory.total, memory.available


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Logical processors that we may use: of this machine, by affinity and by the container's quota (rounded up)."""
    cores = psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def installed(distribution: str) -> str | None:
    """The version of an installed Python package; None if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _processor(cgroup: Path) -> dict[str, Any]:
    """What does not change while a process lives."""
    logical = usable_cores(cgroup)
    physical = psutil.cpu_count(logical=False) or logical
    return {"cpu_cores_physical": min(physical, logical), "cpu_cores_logical": logical, "cpu_model": _processor_name()}


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"  # ARM's cpuinfo has no model name


def _quota(cgroup: Path) -> float | None:
    """Processors' worth of time that the container may take, None without a limit."""
    words = _text(cgroup / "cpu.max").split()  # version 2: "150000 100000" or "max 100000"
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None  # version 1: -1 is no limit


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    """The number in a file; None if it is not there, or holds "max"."""
    try:
        return int(_text(file))
    except ValueError:
        return None


def _keyed_number(file: Path, key: str) -> int:
    found = [line.split()[1] for line in _text(file).splitlines() if line.startswith(key + " ")]
    return int(found[0]) if found else 0
