"""Kills a program that no longer shows signs of life, so that supervisord restarts it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from supervision import Program

log = logging.getLogger(__name__)

#: How long a program may be silent, in seconds; its main thread touches its liveness file every second. inference gets more
#: time, because a library may hold the interpreter while a model loads.
MAX_SILENCE_S = {"poller": 20.0, "uploader": 20.0, "inference": 180.0}
#: A longer gap than this between two checks means that this process was frozen, and probably the others too.
MAX_PAUSE_S = 12.0


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The newest sign of life of a program: its process, its file's time stamp, and when we first saw that."""

    pid: int
    stamp: int
    seen_at: float


class Watch:
    """Compares each observation with the previous one, so that clock jumps do no harm."""

    def __init__(self, run_dir: Path, limits_s: dict[str, float] | None = None) -> None:
        self._run_dir = run_dir
        self._limits_s = MAX_SILENCE_S if limits_s is None else limits_s
        self._signs: dict[str, Sign] = {}
        self._looked_at: float | None = None

    def look(self, programs: list[Program], now_s: float | None = None) -> list[str]:
        """Kill the programs that are stuck; returns their names. now_s: monotonic seconds."""
        now_s = time.monotonic() if now_s is None else now_s
        if self._looked_at is None or now_s - self._looked_at > MAX_PAUSE_S:
            self._signs.clear()
        self._looked_at = now_s
        running = [program for program in programs if program.state in ("STARTING", "RUNNING")]
        return [program.name for program in running if self._is_stuck(program, now_s) and _kill(program)]

    def _is_stuck(self, program: Program, now_s: float) -> bool:
        limit_s = self._limits_s.get(program.name)
        if limit_s is None or program.pid is None:
            return False
        stamp, known = self._stamp(program.name), self._signs.get(program.name)
        if known is None or (known.pid, known.stamp) != (program.pid, stamp):
            self._signs[program.name] = Sign(pid=program.pid, stamp=stamp, seen_at=now_s)
            return False
        silent_s = now_s - known.seen_at
        if silent_s <= limit_s:
            return False
        log.error("killing %s, which has shown no sign of life for %.0f s; it will be restarted", program.name, silent_s)
        return True

    def _stamp(self, program: str) -> int:
        try:
            return (self._run_dir / f"alive-{program}").stat().st_mtime_ns
        except FileNotFoundError:
            return 0  # it has not started its loop yet


def _kill(program: Program) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(program.pid or 0, signal.SIGKILL)
        return True
    return False
