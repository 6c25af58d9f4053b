"""Whether this worker is alive, fit, and ready for a job: /health and /ready, independent of the other programs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from jobqueue.control import STALE_S, Control, closed
from jobqueue.database import DatabaseError
from jobqueue.job import BEFORE_GPU
from jobqueue.queue import Queue

log = logging.getLogger(__name__)

#: Maximum number of unfinished jobs from /generate; more are rejected.
MAX_QUEUED = 16


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A snapshot of the worker. `inference` is that program's last status, empty if it is dead or has not reported."""

    flags: dict[str, dict[str, Any]]
    published: dict[str, dict[str, Any]]
    counts: dict[str, int]
    at: float

    @property
    def inference(self) -> dict[str, Any]:
        return fresh(self.published, "inference")

    @property
    def jobs_waiting(self) -> int:
        """Jobs that have not reached the GPU."""
        return sum(self.counts.get(state, 0) for state in BEFORE_GPU)


class Probes:
    """Keeps the last snapshot, so that /health has an answer while the queue cannot be read."""

    def __init__(self, queue: Queue, control: Control, *, engine: str, mode: str, version: str) -> None:
        self._queue, self._control = queue, control
        self.engine, self.mode, self.version = engine, mode, version
        self._last = Seen(flags={}, published={}, counts={}, at=time.monotonic())

    def look(self) -> Seen:
        """The worker now. Raises DatabaseError."""
        flags, published = self._control.flags(), self._control.published()
        seen = Seen(flags=flags, published=published, counts=self._queue.counts(), at=time.monotonic())
        self._last = seen
        return seen

    def health(self) -> tuple[dict[str, Any], int]:
        """Body and status of /health: 503 only once the worker has judged itself unfit."""
        note = None
        try:
            seen = self.look()
        except DatabaseError as error:
            seen = self._last
            note = f"the queue cannot be read ({error}); state from {time.monotonic() - seen.at:.0f} s ago"
            log.warning("/health: %s", note)
        body = {
            "status": "ok",
            "model_loaded": bool(seen.inference.get("model_loaded")),
            "engine": self.engine,
            "mode": self.mode,
            "version": self.version,
            "paused": "paused" in seen.flags,
            "draining": "draining" in seen.flags,
            "jobs_waiting": seen.jobs_waiting,
            **({"note": note} if note else {}),
        }
        if "unfit" in seen.flags:
            reason = seen.flags["unfit"].get("reason") or "the worker found itself unfit"
            return {**body, "status": "unhealthy", "reason": reason}, 503
        return body, 200

    def ready(self) -> tuple[dict[str, Any], int]:
        """Body and status of /ready: 200 if a job sent now would start."""
        try:
            seen = self.look()
            reason = refusal(seen.flags) or not_loaded(seen) or full(self._queue)
        except DatabaseError as error:
            reason = f"the queue cannot be read: {error}"
        return ({"ready": False, "reason": reason}, 503) if reason else ({"ready": True}, 200)


def fresh(published: dict[str, dict[str, Any]], program: str) -> dict[str, Any]:
    """A program's last status, or nothing if it is too old."""
    said = published.get(program, {})
    return said if said and said["age_s"] < STALE_S else {}


def refusal(flags: dict[str, dict[str, Any]]) -> str | None:
    """Why no new job is accepted, according to the flags; None if one is."""
    if name := closed(flags):
        reason = flags[name].get("reason")
        return f"the worker is {name}" + (f": {reason}" if reason else "")
    return None


def not_loaded(seen: Seen) -> str | None:
    """Why a job would be accepted but not started now; None if it would start."""
    if not seen.inference:
        return "inference is not running yet"
    if not seen.inference.get("model_loaded"):
        return seen.inference.get("reason") or "the model is loading"
    return None


def full(queue: Queue) -> str | None:
    """Why /generate cannot accept another job; None if it can."""
    queued = sum(job.source == "queue" for job in queue.unfinished())
    return f"the queue is full: {queued} jobs are waiting, at most {MAX_QUEUED}" if queued >= MAX_QUEUED else None
