"""Whether there is room for one more job, and why not: the rule of just-in-time claiming, a pure function."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobqueue.control import STALE_S
from jobqueue.job import Job
from telemetry.disk import least_free_bytes

#: Jobs that may wait for the GPU at the most, and how much earlier than it usually takes to bring one it is claimed, since
#: links and jobs differ, and what was brought must be prepared.
MOST_AHEAD, MARGIN = 8, 3.0
#: Finished videos that the store has not taken, at which nothing more is begun.
MOST_UNSTORED = 16
#: The part of a job's progress that the GPU makes (PROTOCOL §3): from here, by this much.
_FROM, _SPAN = 0.10, 0.80


def no_room(
    *,
    unfinished: list[Job],
    flags: dict[str, Any],
    usual: dict[str, float],
    inference: dict[str, Any] | None,
    capacity: int,
    prefetch_jobs: int,
    prefetch_lead_s: float,
    most_ahead: int,
    waiting_for_store: int,
    disk_bytes: tuple[int, int],
    now: datetime,
) -> str | None:
    """Why no job may be claimed now; None if one may.

    inference: what that program last published, None if nothing. usual: seconds that jobs spent in each state lately.
    waiting_for_store: finished videos that are not stored yet. disk_bytes: what the data folder's disk holds, and what is free.

    A job is claimed when fewer than `capacity` are before the GPU or on it; or ahead of time, if the GPU is expected to be free
    for it within `prefetch_lead_s` seconds: while fewer than `prefetch_jobs` wait, and beyond these, up to `most_ahead`, as
    long as those that wait will be done before its inputs could be here. So the GPU does not idle where jobs are short and
    the link is slow, and nobody else's GPU could have begun it much earlier.
    """
    for flag in ("paused", "draining", "unfit", "hold"):
        if flag in flags:
            return flag
    total, free = disk_bytes
    if free < least_free_bytes(total):
        return f"the disk has only {free / 1e6:.0f} MB free"
    if waiting_for_store >= MOST_UNSTORED:
        return "finished videos wait for the store"
    if inference is None or inference.get("age_s", STALE_S) >= STALE_S:
        return "inference is not running"
    if inference.get("model_loaded") is not True:
        return "the model is loading"
    waiting = [job for job in unfinished if job.state in ("claimed", "fetching", "ready")]
    running = [job for job in unfinished if job.state == "generating"]
    if len(waiting) + len(running) < capacity:
        return None
    if prefetch_jobs == 0:
        return "a job is running" if not waiting else "enough jobs wait"
    free_s = _free_s(running, len(waiting), usual, now)
    most = most_ahead if free_s is not None and free_s < MARGIN * usual.get("fetching", 0.0) else prefetch_jobs
    if len(waiting) >= most:
        return "enough jobs wait"
    return None if free_s is not None and free_s <= prefetch_lead_s else "the running job is not about to end"


def _free_s(running: list[Job], waiting: int, usual: dict[str, float], now: datetime) -> float | None:
    """When the GPU is expected to be done with the jobs in hand, in seconds; None if that cannot be said."""
    if not running and not usual:
        return None
    left = [remaining_s(job, now, usual.get("generating")) for job in running]
    return None if None in left else sum(filter(None, left)) + waiting * usual.get("generating", 0.0)


def remaining_s(job: Job, now: datetime, usual_s: float | None = None) -> float | None:
    """When a running job is expected to leave the GPU, in seconds; None if nothing is known yet. usual_s: what such jobs take,
    for as long as it has not said how far it is."""
    if job.started_at is None:
        return None
    elapsed_s = (now - datetime.fromisoformat(job.started_at).astimezone(UTC)).total_seconds()
    done = (job.progress - _FROM) / _SPAN
    if job.frames_total:
        done = (job.frames_done or 0) / job.frames_total
    if done <= 0 or elapsed_s <= 0:
        return None if usual_s is None or elapsed_s > usual_s else usual_s - elapsed_s
    return elapsed_s * max(0.0, 1 - done) / min(done, 1.0)
