"""Named points at which the torture test kills a program with SIGKILL, once: programs can die between any two lines.

A point costs a lookup in an empty set when nothing is armed. Arm with `KILL_AT=name,name` or `KILL_AT=all` (see settings.py);
each point kills once in a data folder's lifetime.
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
    "fetch.after_commit",
    "generate.before_engine",
    "generate.after_write",
    "generate.after_rename",
    "generate.after_commit",
    "upload.before_put",
    "upload.after_put",
    "upload.after_sidecar",
    "upload.after_commit",
    "report.before_post",
    "report.before_note",
    "report.after_answer",
    "report.after_commit",
    "janitor.before_remove",
)

_armed: frozenset[str] = frozenset()
_folder = Path()


def arm(names: str | None, folder: Path) -> None:
    """Kill this process the first time each of `names` is passed in `folder`'s life. Raises ValueError if one is unknown."""
    global _armed, _folder
    wanted = POINTS if names == "all" else tuple(filter(None, (names or "").split(",")))
    unknown = set(wanted) - set(POINTS)
    if unknown:
        raise ValueError(f"KILL_AT={','.join(sorted(unknown))}: must be all, or some of {', '.join(POINTS)}")
    _armed, _folder = frozenset(wanted), folder


def marker(name: str, folder: Path) -> Path:
    """The file that says that a point has killed."""
    return folder / f"killed-at-{name}"


def point(name: str) -> None:
    """Die here if this point is armed and has not killed yet."""
    if name not in _armed:
        return
    try:
        marker(name, _folder).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
