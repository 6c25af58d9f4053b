"""Jobs that are stuck although the worker is running. Read-only; the programs' own watchdogs end such jobs."""

from __future__ import annotations

from datetime import UTC, datetime

from doctor.finding import Finding, Situation
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import Database, DatabaseError
from jobqueue.job import STAGES, WAITING, Job
from jobqueue.queue import Queue

#: A program exits after five minutes without progress of its job; after this long (s) that has failed.
STUCK_S = 600.0
#: How long a job may wait for an idle program, in seconds.
WAITS_S = 600.0
#: Jobs that are listed individually.
MAX_NAMED = 5


def jobs(now: Situation) -> list[Finding]:
    """A finding per stuck job. Nothing if the worker is not running; a paused worker lets jobs wait."""
    path = now.settings.database
    if now.programs is None or not path.exists():
        return []
    try:
        database = Database(path)
        unfinished, flags = Queue(database).unfinished(), Control(database).flags()
    except DatabaseError:
        return []  # the queue's own finding reports it
    found = [_stuck(job) for job in unfinished if job.state not in WAITING and _still_s(job) > STUCK_S]
    busy = {(job.owner or "").split("/")[0] for job in unfinished}
    idle = {program.name for program in now.programs if program.up_s > WAITS_S} - busy  # it may still be loading
    waiting = [job for job in unfinished if job.state in WAITING and job.not_before <= clock.now() and _still_s(job) > WAITS_S]
    found += [_left(job) for job in waiting if not flags and _program(job) in idle]
    return [
        *found[:MAX_NAMED],
        Finding(name="jobs", level="ok", said=f"{len(unfinished)} unfinished, {len(found)} of them stuck"),
    ]


def _stuck(job: Job) -> Finding:
    said = f"{job.id[:60]} is {job.state} at {job.progress:.0%} and has made no progress for {_still_s(job) / 60:.0f} minutes"
    do = f"worker logs --job {job.id[:60]}; worker restart {_owner(job)} --now starts it over"
    return Finding(name="jobs", level="warn", said=said, do=do)


def _left(job: Job) -> Finding:
    said = f"{job.id[:60]} has been {job.state} for {_still_s(job) / 60:.0f} minutes, and {_program(job)} is idle"
    do = f"worker logs --job {job.id[:60]}; worker logs {_program(job)}"
    return Finding(name="jobs", level="warn", said=said, do=do)


def _program(job: Job) -> str:
    """The program that a waiting job is waiting for."""
    return next(stage.program for stage in STAGES if job.state == stage.waiting)


def _owner(job: Job) -> str:
    return (job.owner or "inference").split("/")[0]


def _still_s(job: Job) -> float:
    """Seconds since the job last moved, by wall time: less if the clock was set back."""
    return (datetime.now(UTC) - datetime.fromisoformat(job.updated_at)).total_seconds()
