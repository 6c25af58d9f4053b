"""Whether there is room for one more job, and why not: the rule of just-in-time claiming, a pure function."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobqueue.job import Job

#: Older words of the inference program do not count: it may be dead.
FRESH_S = 30.0
#: The part of a job's progress that the GPU makes (PROTOCOL §3): from here, by this much.
_FROM, _SPAN = 0.10, 0.80


def no_room(
    *,
    unfinished: list[Job],
    flags: dict[str, Any],
    inference: dict[str, Any] | None,
    capacity: int,
    prefetch_jobs: int,
    prefetch_lead_s: float,
    now: datetime,
) -> str | None:
    """Why no job may be claimed now; None if one may. `inference`: what that program last published, None if nothing.

    A job is claimed when fewer than `capacity` are before the GPU or on it, or ahead of time: while fewer than
    `prefetch_jobs` wait and the running one is expected to end within `prefetch_lead_s` seconds.
    """
    for flag in ("paused", "draining", "unfit", "hold"):
        if flag in flags:
            return flag
    if inference is None or inference.get("age_s", FRESH_S) >= FRESH_S:
        return "inference is not running"
    if inference.get("model_loaded") is not True:
        return "the model is loading"
    waiting = [job for job in unfinished if job.state in ("claimed", "fetching", "ready")]
    running = [job for job in unfinished if job.state == "generating"]
    if len(waiting) + len(running) < capacity:
        return None
    if len(waiting) >= prefetch_jobs:
        return "a job is running" if not waiting else "enough jobs wait"
    left = [remaining_s(job, now) for job in running]
    if not left or any(seconds is None or seconds > prefetch_lead_s for seconds in left):
        return "the running job is not about to end"
    return None


def remaining_s(job: Job, now: datetime) -> float | None:
    """When a running job is expected to leave the GPU, in seconds; None if nothing is known yet."""
    if job.started_at is None:
        return None
    elapsed_s = (now - datetime.fromisoformat(job.started_at).astimezone(UTC)).total_seconds()
    done = (job.progress - _FROM) / _SPAN
    if job.frames_total:
        done = (job.frames_done or 0) / job.frames_total
    if done <= 0 or elapsed_s <= 0:
        return None
    return elapsed_s * max(0.0, 1 - done) / min(done, 1.0)
