"""Why the container ends: left in the run folder by whoever decided it, read by `guard.pid1` when all programs have ended.

supervisord's own exit status is 0 whatever happened, so the code and the reason travel beside it.
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


#: This process's own verdict, where the run folder could not take it.
_unwritten: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The container's exit code, and the reason in words: the last line of its log."""

    code: int
    reason: str


def leave(run_dir: Path, verdict: Verdict) -> None:
    """Write the verdict, whole or not at all; an earlier one stays, because what came later only followed from it. On a full
    disk it is kept for this process alone: whoever decides the end must not die of telling why."""
    global _unwritten
    written = run_dir / f"exit.json.{os.getpid()}"
    try:
        written.write_text(json.dumps(asdict(verdict)))
        os.link(written, run_dir / "exit.json")
    except FileExistsError:
        pass
    except OSError as error:
        log.error("why the worker ends could not be written (%s): %s", error.strerror, verdict.reason)
        _unwritten = _unwritten or verdict
    finally:
        with contextlib.suppress(OSError):
            written.unlink()


def found(run_dir: Path) -> Verdict | None:
    """The verdict that was left, or None if the end was an ordinary stop."""
    try:
        return Verdict(**json.loads((run_dir / "exit.json").read_text()))
    except FileNotFoundError:
        return _unwritten


def forget(run_dir: Path) -> None:
    """Remove what an earlier life left."""
    (run_dir / "exit.json").unlink(missing_ok=True)
