"""Why the container exits: written to the run folder by whoever decided it, read by `guard.pid1` when all programs have exited.

supervisord's own exit status is always 0, so the code and the reason are passed separately.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: A program could not be kept running.
EXIT_FATAL = 70


#: This process's own verdict, if it could not be written to the run folder.
_unwritten: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The container's exit code, and the reason in words: the last line of its log."""

    code: int
    reason: str


def leave(run_dir: Path, verdict: Verdict) -> None:
    """Write the verdict, completely or not at all; an earlier one stays, because later ones only follow from it. On a full
    disk it is kept in this process only: writing the reason must not crash the process that decides."""
    global _unwritten
    written = run_dir / f"exit.json.{os.getpid()}"
    try:
        written.write_text(json.dumps(asdict(verdict)))
        os.link(written, run_dir / "exit.json")
    except FileExistsError:
        pass
    except OSError as error:
        log.error("the reason for the exit could not be written (%s): %s", error.strerror, verdict.reason)
        _unwritten = _unwritten or verdict
    finally:
        with contextlib.suppress(OSError):
            written.unlink()


def found(run_dir: Path) -> Verdict | None:
    """The verdict, or None for an ordinary stop."""
    try:
        return Verdict(**json.loads((run_dir / "exit.json").read_text()))
    except FileNotFoundError:
        return _unwritten


def forget(run_dir: Path) -> None:
    """Delete the verdict of a previous run."""
    (run_dir / "exit.json").unlink(missing_ok=True)
