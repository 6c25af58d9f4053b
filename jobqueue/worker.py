"""work(): the loop shared by all three stages, and the only place that decides whether a job is retried."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import structlog

from errors import (
    Cancelled,
    EngineFailed,
    InvalidInput,
    JobError,
    LostJob,
    OutOfMemory,
    Unavailable,
    Unreachable,
    lacks_handles,
    shortage,
)
from jobqueue import clock, faults, pause
from jobqueue.database import ERRORS
from jobqueue.job import Job, Stage
from jobqueue.queue import Queue

log = logging.getLogger(__name__)

#: A stage's own work: Raises JobError, Cancelled or LostJob; returns what to add to the job's result.
Do = Callable[[Job, "Progress"], dict[str, Any]]

#: Minimum interval between progress updates to the queue, in seconds. It is also how soon a cancellation is noticed.
PROGRESS_EVERY_S = 0.25
#: Seconds between attempts while the queue cannot be written.
QUEUE_PAUSE_S = 1.0

#: Starts of a job after which a program without file handles exits, so that a restart recovers them.
MAX_WITHOUT_HANDLES = 4

#: Errors that say nothing about the job: it is no longer ours, or the queue cannot be written.
NOT_THE_JOBS: tuple[type[Exception], ...] = (LostJob, *ERRORS)


class Stopped(Exception):
    """The program is stopping and this job cannot finish in time: it goes back unharmed."""


class NoHandles(BaseException):
    """This process is out of file handles for good: it must exit. Not an `Exception`, or a job would be blamed."""


class Progress:
    """Passed to a stage's work: `progress(phase, done, total, fraction)` reports progress and checks for requests.

    Cheap enough for every frame. Raises Cancelled, LostJob, or Stopped when the program has been stopping for grace_s.
    """

    def __init__(self, queue: Queue, job: Job, stop: threading.Event, grace_s: float) -> None:
        self._queue, self._job, self._stop, self._grace_s = queue, job, stop, grace_s
        self._next = 0.0
        self._stopping_since: float | None = None

    def __call__(self, phase: str, fraction: float, done: int | None = None, total: int | None = None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY_S
        asked = self._queue.progress(self._job, phase, fraction, done, total)
        if asked.hold and asked.cancel_reason is None:
            asked = self._held(phase, fraction, done, total)
        if asked.cancel_reason is not None:
            raise Cancelled(asked.cancel_reason)
        if self.is_stopping:
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > self._grace_s:
                raise Stopped

    @property
    def is_stopping(self) -> bool:
        """Whether the program is to end."""
        return self._stop.is_set()

    def _held(self, phase: str, fraction: float, done: int | None, total: int | None) -> Any:
        log.info("waiting for the orchestrator to confirm this job, because the clock jumped")
        while True:
            asked = self._queue.progress(self._job, phase, fraction, done, total)
            if not asked.hold or asked.cancel_reason is not None or self._stop.wait(0.2):
                return asked


def work(
    stage: Stage, do: Do, queue: Queue, owner: str, stop: threading.Event, *, timeout_s: float, grace_s: float = 5.0
) -> None:
    """Take jobs of a stage and do them, one after another, until `stop` is set.

    timeout_s: how long a stage may take, including retries; after that, external errors end the job too.
    Raises NoHandles.
    """
    job, unsure = None, False
    while not stop.is_set():
        mark = queue.bell.mark()
        try:
            if unsure:  # whether the last move was committed: what is still ours goes back
                queue.let_go(owner)
                unsure = False
            job = job or queue.take(stage, owner)
            if job is None:
                queue.bell.wait(mark)
                continue
            with structlog.contextvars.bound_contextvars(job=job.id, stage=stage.name, attempt=job.attempt):
                job = _one(stage, do, queue, job, Progress(queue, job, stop, grace_s), timeout_s)
        except LostJob:
            job = None
            log.warning("the job is no longer ours; its work is discarded")
        except ERRORS as error:  # a full disk, for example: continue when it works again, like the other loops
            job, unsure = None, True
            log.error("the queue cannot be written, trying again: %s", error)
            stop.wait(QUEUE_PAUSE_S)
    if job is not None:  # taken at the last moment
        with contextlib.suppress(LostJob, *ERRORS):  # otherwise the next run finds it
            queue.put_back(stage, job, 0, unharmed=True)


def _one(stage: Stage, do: Do, queue: Queue, job: Job, progress: Progress, timeout_s: float) -> Job | None:
    """Do this job; returns the next one if it was taken in the commit that ended this."""
    try:
        if job.cancel_reason is not None:
            raise Cancelled(job.cancel_reason)
        result = do(job, progress)
        json.dumps(result, allow_nan=False)  # a result that the queue cannot store is this job's fault, not the queue's
    except Cancelled as reason:
        queue.cancelled(job, str(reason))
        log.info("cancelled: %s", reason)
    except Stopped:
        queue.put_back(stage, job, 0, unharmed=True)
        log.info("put back: the program is stopping")
    except NOT_THE_JOBS:
        raise
    except JobError as error:
        _fail_or_retry(stage, queue, job, error, timeout_s)
    except MemoryError:
        _fail_or_retry(stage, queue, job, OutOfMemory("the machine ran out of memory"), timeout_s)
    except Exception as error:  # the one place that catches everything: a job never ends the process
        found = shortage(error) or _unknown(error)
        found.__cause__ = error
        _fail_or_retry(stage, queue, job, found, timeout_s)
    else:
        state, following = queue.done_and_take(stage, job, result, take=not progress.is_stopping)
        faults.point(f"{stage.name}.after_commit")
        log.info("%s after %.1f s", state, clock.now() - job.stage_since)
        return following
    return None


def _unknown(error: Exception) -> JobError:
    unknown = EngineFailed(f"{type(error).__name__}: {error}", stack_trace=traceback.format_exc(limit=-20))
    unknown.error_type = "unknown_error"
    return unknown


def _fail_or_retry(stage: Stage, queue: Queue, job: Job, error: JobError, timeout_s: float) -> None:
    pause_s = pause.before_try(job.attempt)
    late = clock.now() + pause_s - job.stage_since > timeout_s
    spent = job.attempt >= stage.max_attempts and not isinstance(error, Unavailable)
    if late or spent or isinstance(error, InvalidInput | Unreachable):
        queue.fail(job, error.as_json(stage.default_step))
        log.error("failed: %s", error.message)
    else:
        queue.put_back(stage, job, pause_s, error)
        log.warning("retrying in %.1f s: %s", pause_s, error.message)
    if job.attempt >= MAX_WITHOUT_HANDLES and lacks_handles(error):
        raise NoHandles("this program is out of file handles (ulimit -n); restarting to recover them")
