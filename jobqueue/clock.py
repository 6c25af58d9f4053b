"""Two clocks: one for decisions, one for people.

Decisions (back-off, deadlines) use CLOCK_BOOTTIME, which no time server moves and which counts on while a machine sleeps.
It starts anew at boot, so the database keeps the boot's id and resets such values when it changes. Wall time is only shown.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


def now() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """A name for this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def utc(in_s: float = 0.0) -> str:
    """The time of day, now or in so many seconds, as UTC text with milliseconds, fit to be sorted and shown."""
    at = datetime.now(UTC) + timedelta(seconds=in_s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
