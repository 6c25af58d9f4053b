"""Restricts a process that handles hostile input: memory, CPU time, core dumps, and outliving its parent."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def this_process(*, memory_bytes: int, cpu_s: int) -> None:
    """Limit this process for the rest of its life; on Linux it also dies with its parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_CPU, cpu_s)
    if sys.platform != "linux":
        return
    _lower(resource.RLIMIT_AS, memory_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _lower(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (value, value))
