"""Prepares the next job while another one is on the GPU, so that its frames start as soon as the GPU is free.

It does not take or move the job, which stays `ready` until its turn; the preparation is dropped if the job goes elsewhere.
Only for engines with `prepares_ahead`: their `prepare` must be safe to run during `generate`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import Cancelled, InvalidInput
from inference.engine import Engine
from inference.inputs import inputs_of
from jobqueue.database import ERRORS
from jobqueue.job import Job
from jobqueue.queue import Queue

log = logging.getLogger(__name__)

#: How often to check whether the job is still wanted, and how often the waiting caller reports progress, in seconds.
ASK_EVERY_S = 1.0


@dataclass
class Coming:
    """A job in preparation, or prepared. `done` and `total` are the engine's own counts, `words` the number of its reports."""

    job: Job
    prepared: Future[Any]
    done: int = 0
    total: int = 1
    words: int = 0

    def is_for(self, job: Job) -> bool:
        return (self.job.id, self.job.round) == (job.id, job.round)


class Ahead:
    """Prepares one job ahead. `begin` gives it the engine; before that, and for engines that cannot, it does nothing."""

    def __init__(self, queue: Queue, data_dir: Path) -> None:
        self._queue, self._data_dir = queue, data_dir
        self._engine: Engine | None = None
        self._coming: Coming | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def begin(self, engine: Engine) -> None:
        if getattr(engine, "prepares_ahead", False):
            self._engine = engine
            self._queue.bell.ring()

    def loop(self, stop: threading.Event) -> None:
        """Prepare whatever comes next, until `stop`."""
        while not stop.is_set():
            mark = self._queue.bell.mark()
            try:
                coming = self._look(stop)
            except ERRORS as error:
                log.warning("the queue could not be read: %s", error)
                stop.wait(ASK_EVERY_S)
                continue
            if coming is not None:
                wait([coming.prepared], ASK_EVERY_S)
            if coming is None or coming.prepared.done():
                self._queue.bell.wait(mark)

    def take(self, job: Job, report: Callable[[int, int], None]) -> Any | None:
        """The preparation of this job, whose turn has come; None if there is none, or it must be repeated.

        Waits until it is complete; `report(done, total)` is called whenever the engine has reported, even without changes, and
        may raise. Raises InvalidInput.
        """
        with self._lock:
            coming = self._coming
            if coming is None or not coming.is_for(job):
                return None
            self._coming = None
        heard = -1
        while not wait([coming.prepared], ASK_EVERY_S / 5).done:
            if coming.words != heard:
                heard = coming.words
                report(coming.done, coming.total)
        error = coming.prepared.exception()
        if error is None:
            return coming.prepared.result()
        if isinstance(error, InvalidInput):
            raise error
        return None  # perhaps not enough memory next to the other job: now it has the GPU to itself

    def _look(self, stop: threading.Event) -> Coming | None:
        """The current preparation; starts it if it is new."""
        if self._engine is None:
            return None
        jobs = self._queue.unfinished()
        waiting = [job for job in jobs if job.state == "ready" and job.cancel_reason is None]
        with self._lock:
            if self._coming is not None and not any(self._coming.is_for(job) for job in jobs):
                self._coming = None
            if self._coming is None and waiting and any(job.state == "generating" for job in jobs):
                self._coming = self._begun(self._engine, waiting[0], stop)
            return self._coming

    def _begun(self, engine: Engine, job: Job, stop: threading.Event) -> Coming:
        coming = Coming(job=job, prepared=Future())

        def progress(phase: str, done: int, total: int) -> None:
            coming.done, coming.total, coming.words = done, total, coming.words + 1
            if stop.is_set() or (self._coming is not coming and not self._is_ours(job)):
                raise Cancelled("no longer wanted")

        def prepare() -> Any:
            return engine.prepare(inputs_of(job, self._data_dir), job.params, progress)

        coming.prepared = self._pool.submit(prepare)
        coming.prepared.add_done_callback(_let_frames_go)
        return coming

    def _is_ours(self, job: Job) -> bool:
        now = self._queue.get(job.id)
        return now is not None and now.round == job.round and now.state in ("ready", "generating") and not now.cancel_reason


def _let_frames_go(prepared: Future[Any]) -> None:
    """An error references its stack frames, and these their GPU memory, and its job's turn may be far off."""
    left = [None if prepared.cancelled() else prepared.exception()]
    while left:
        error = left.pop()
        if error is not None and error.__traceback__ is not None:
            left += [error.__cause__, error.__context__]
            error.__traceback__ = None
