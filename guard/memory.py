"""Kills the biggest program before the kernel's OOM killer chooses one, which might be the poller with the heartbeat."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

import psutil

from supervision import Program
from telemetry import host

log = logging.getLogger(__name__)

#: Memory is exhausted when less than this fraction of the limit is free.
MIN_FREE = 0.03
#: Only a program with at least this fraction is considered the cause.
MIN_GUILT = 0.25
#: Time for memory to be released before another program is killed, in seconds.
PAUSE_S = 60.0


class Pressure:
    """Watches the free memory of this container, or of the machine if the container has no limit."""

    def __init__(self, cgroup: Path = host.CGROUP) -> None:
        self._cgroup = cgroup
        self._quiet_until = 0.0

    def look(self, programs: list[Program]) -> str | None:
        """Kill the biggest program if memory is exhausted and that program is the cause; returns its name."""
        limit_bytes, free_bytes = host.memory_bytes(self._cgroup)
        if free_bytes >= MIN_FREE * limit_bytes or time.monotonic() < self._quiet_until:
            return None
        sizes = {program.name: _size_bytes(program.pid) for program in programs if program.pid is not None}
        name = max(sizes, key=lambda name: sizes[name], default=None)
        if name is None or sizes[name] < MIN_GUILT * limit_bytes:
            return None
        self._quiet_until = time.monotonic() + PAUSE_S
        log.error(
            "out of memory, %d of %d MB free: killing %s, which uses %d MB; it will be restarted",
            *(free_bytes >> 20, limit_bytes >> 20, name, sizes[name] >> 20),
        )
        pid = next(program.pid for program in programs if program.name == name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)
        return name


def _size_bytes(pid: int | None) -> int:
    """Unshared memory of a program and its children."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss - each.memory_info().shared
    return total
