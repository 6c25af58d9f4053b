"""Ends the biggest program before the kernel has to choose one: it might choose the poller, and with it the heartbeat."""

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

#: Memory is gone when less than this fraction of the limit is free.
LEAST_FREE = 0.03
#: Only a program that holds at least this fraction is taken to be the cause.
LEAST_GUILT = 0.25
#: Time for the memory to come back before another program is looked for, in seconds.
PAUSE_S = 60.0


class Pressure:
    """Watches how much memory is left in this container, or on this machine if it has no limit of its own."""

    def __init__(self, cgroup: Path = host.CGROUP) -> None:
        self._cgroup = cgroup
        self._quiet_until = 0.0

    def look(self, programs: list[Program]) -> str | None:
        """Kill the biggest program if memory is gone and that program is the cause; returns its name."""
        limit_bytes, free_bytes = host.memory_bytes(self._cgroup)
        if free_bytes >= LEAST_FREE * limit_bytes or time.monotonic() < self._quiet_until:
            return None
        sizes = {program.name: _size_bytes(program.pid) for program in programs if program.pid is not None}
        name = max(sizes, key=lambda name: sizes[name], default=None)
        if name is None or sizes[name] < LEAST_GUILT * limit_bytes:
            return None
        self._quiet_until = time.monotonic() + PAUSE_S
        log.error(
            "memory is gone, %d of %d MB are free: %s holds %d MB and is ended; it is started again",
            *(free_bytes >> 20, limit_bytes >> 20, name, sizes[name] >> 20),
        )
        pid = next(program.pid for program in programs if program.name == name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)
        return name


def _size_bytes(pid: int | None) -> int:
    """Memory of a program and its children that nobody else uses."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss - each.memory_info().shared
    return total
