"""Whether to claim one more job, and if not, why: the prefetch rule, a pure function."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobqueue.control import STALE_S
from jobqueue.job import BEFORE_GPU, Job
from telemetry.disk import min_free_bytes

#: Maximum number of jobs waiting for the GPU, and the safety factor on the usual download time, since links and jobs differ,
#: and inputs must be prepared.
MAX_AHEAD, MARGIN = 8, 3.0
#: At this many finished videos waiting to be uploaded, no job is claimed.
MAX_UNSTORED = 16
#: The GPU's part of a job's progress (PROTOCOL §3): its start and its size.
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
    max_ahead: int,
    waiting_for_store: int,
    disk_bytes: tuple[int, int],
    now: datetime,
) -> str | None:
    """Why no job may be claimed now; None if one may.

    inference: what that program last published, None if nothing. usual: seconds that recent jobs spent in each state.
    waiting_for_store: finished videos that are not uploaded yet. disk_bytes: size and free space of the data folder's disk.

    A job is claimed if fewer than `capacity` are waiting for the GPU or on it. It is prefetched if the GPU is expected to be
    free for it within `prefetch_lead_s` seconds: while fewer than `prefetch_jobs` wait, and beyond these, up to `max_ahead`,
    as long as the waiting jobs would finish before its inputs could arrive. So the GPU does not idle where jobs are short and
    the network is slow, and no other GPU could have started the job much earlier.
    """
    for flag in ("paused", "draining", "unfit", "hold"):
        if flag in flags:
            return flag
    total, free = disk_bytes
    if free < min_free_bytes(total):
        return f"the disk has only {free / 1e6:.0f} MB free"
    if waiting_for_store >= MAX_UNSTORED:
        return f"{waiting_for_store} finished videos are waiting to be uploaded"
    if inference is None or inference.get("age_s", STALE_S) >= STALE_S:
        return "inference is not running"
    if inference.get("model_loaded") is not True:
        return "the model is loading"
    waiting = [job for job in unfinished if job.state in BEFORE_GPU]
    running = [job for job in unfinished if job.state == "generating"]
    if len(waiting) + len(running) < capacity:
        return None
    if prefetch_jobs == 0:
        return "a job is running" if not waiting else "enough jobs are queued"
    free_s = _free_s(running, len(waiting), usual, now)
    most = max_ahead if free_s is not None and free_s < MARGIN * usual.get("fetching", 0.0) else prefetch_jobs
    if len(waiting) >= most:
        return "enough jobs are queued"
    return None if free_s is not None and free_s <= prefetch_lead_s else "the running job is not about to finish"


def _free_s(running: list[Job], waiting: int, usual: dict[str, float], now: datetime) -> float | None:
    """Seconds until the GPU is expected to finish the current jobs; None if unknown."""
    if not running and not usual:
        return None
    left = [remaining_s(job, now, usual.get("generating")) for job in running]
    return None if None in left else sum(filter(None, left)) + waiting * usual.get("generating", 0.0)


def remaining_s(job: Job, now: datetime, usual_s: float | None = None) -> float | None:
    """Seconds until a running job is expected to leave the GPU; None if unknown. usual_s: the usual duration, used until the
    job reports progress."""
    if job.started_at is None:
        return None
    elapsed_s = (now - datetime.fromisoformat(job.started_at).astimezone(UTC)).total_seconds()
    done = (job.progress - _FROM) / _SPAN
    if job.frames_total:
        done = (job.frames_done or 0) / job.frames_total
    if done <= 0 or elapsed_s <= 0:
        return None if usual_s is None or elapsed_s > usual_s else usual_s - elapsed_s
    return elapsed_s * max(0.0, 1 - done) / min(done, 1.0)
