"""How much memory a test took, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

FORGET = Path("/proc/self/clear_refs")
#: For tests that need `peak_of`.
counted = pytest.mark.skipif(not os.access(FORGET, os.W_OK), reason="this kernel does not forget a peak")


def peak_of(work: Callable[[], object], *, above: int | None = None) -> int:
    """Bytes that this process had at most during the work, above what it had before, or above so many."""
    before = resident("VmRSS") if above is None else above
    FORGET.write_text("5")  # the peak so far
    work()
    return resident("VmHWM") - before


def resident(name: str = "VmRSS") -> int:
    """Bytes of memory that this process has ("VmRSS") or had at most ("VmHWM")."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
