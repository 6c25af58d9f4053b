"""Named points at which the torture test ends a program with SIGKILL, once: between any two lines is where programs die.

A point costs one comparison when nothing is armed. Arm with `KILL_AT=name` (see settings.py).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

#: Every point there is, in the order a job passes them; the torture test walks this list.
POINTS = (
    "claim.before_post",
    "claim.after_answer",
    "claim.after_commit",
    "fetch.before_download",
    "fetch.after_rename",
    "fetch.before_commit",
    "generate.before_engine",
    "generate.after_write",
    "generate.after_rename",
    "generate.after_commit",
    "upload.before_put",
    "upload.after_put",
    "upload.after_sidecar",
    "upload.after_commit",
    "report.before_post",
    "report.after_answer",
    "report.after_commit",
    "janitor.before_remove",
)

_armed: str | None = None
_marker: Path | None = None


def arm(name: str | None, folder: Path) -> None:
    """Kill this process the first time `name` is passed in `folder`'s life. None disarms. Raises ValueError if unknown."""
    global _armed, _marker
    if name is not None and name not in POINTS:
        raise ValueError(f"KILL_AT={name}: must be one of {', '.join(POINTS)}")
    _armed, _marker = name, folder / f"killed-at-{name}"


def point(name: str) -> None:
    """Die here if armed for here and not yet done."""
    if name != _armed or _marker is None:
        return
    try:
        _marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
