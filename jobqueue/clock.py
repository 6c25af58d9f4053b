"""Two clocks: one for decisions, one for people.

Decisions (back-off, deadlines) use CLOCK_BOOTTIME, which no time server adjusts and which keeps counting during sleep. It
restarts at boot, so the database stores the boot id and resets such values when it changes. Wall time is only shown.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


def now() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def utc(in_s: float = 0.0) -> str:
    """Wall time, now or in this many seconds, as sortable UTC text with milliseconds."""
    at = datetime.now(UTC) + timedelta(seconds=in_s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
