"""The claim loop: asks the orchestrator for a job while there is capacity, at once when the GPU becomes free.

A claim is written to disk before it is sent, and its key goes with the request: if the answer is lost, or we die, the request
is repeated with the same key, so that no job stays claimed by nobody.
"""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from jobqueue import clock, faults, glance, intake, pause
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import NewJob
from jobqueue.queue import Queue
from jobqueue.wake import SAFETY_POLL_S
from poller.identity import Identity, News
from poller.orchestrator import Orchestrator
from poller.room import MAX_AHEAD, no_room

log = logging.getLogger(__name__)


#: Maximum age of the statistics of recent jobs, in seconds.
USUAL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """When to claim: seconds between two polls, and how far ahead (see `poller.room`)."""

    poll_interval_s: float
    prefetch_jobs: int
    prefetch_lead_s: float


class Claiming:
    """The loop's state: when the next claim is due, and the last result."""

    def __init__(
        self, queue: Queue, control: Control, orchestrator: Orchestrator, identity: Identity, rhythm: Rhythm, news: News
    ) -> None:
        self._queue, self._control, self._orchestrator = queue, control, orchestrator
        self._identity, self._rhythm, self._news = identity, rhythm, news
        self._next = 0.0  # boot clock, s
        self._failures = 0
        self._said = ""
        self._had_room = False
        self._usual_s, self._usual_due = dict[str, float](), 0.0

    def loop(self, stop: threading.Event) -> None:
        """Claim until `stop` is set."""
        while not stop.is_set():
            mark = self._queue.bell.mark()
            try:
                wait_s = self.step()
            except ERRORS as error:
                wait_s = self._failed(f"the queue: {error}")
            if wait_s > 0 and not stop.is_set():
                self._queue.bell.wait(mark, min(wait_s, SAFETY_POLL_S))

    def step(self) -> float:
        """Claim if there is capacity and it is time. Returns the seconds until the next check; 0: check again now."""
        why_not = self._no_room()
        self._news.claim = {**self._news.claim, "room": why_not}
        if why_not is not None:
            self._had_room = False
            return SAFETY_POLL_S
        if not self._had_room and not self._failures:
            self._next = 0.0  # the GPU has just become free
        self._had_room = True
        if self._next > clock.now():
            return self._next - clock.now()
        wait_s = self._claim()
        self._next = clock.now() + wait_s
        return wait_s

    def _no_room(self) -> str | None:
        try:
            disk = shutil.disk_usage(self._identity.data_dir)
        except OSError as error:
            return f"the disk does not answer: {(error.strerror or str(error)).lower()}"
        unfinished = self._queue.unfinished()
        return no_room(
            unfinished=unfinished,
            flags=self._control.flags(),
            usual=self._usual(),
            inference=self._control.published().get("inference"),
            capacity=self._identity.capacity if self._identity.mode == "buffer" else 1,
            prefetch_jobs=self._rhythm.prefetch_jobs,
            prefetch_lead_s=self._rhythm.prefetch_lead_s,
            # a buffer reports how many jobs it holds
            max_ahead=self._rhythm.prefetch_jobs if self._identity.mode == "buffer" else MAX_AHEAD,
            waiting_for_store=sum(job.state in ("generated", "uploading") for job in unfinished),
            disk_bytes=(disk.total, disk.free),
            now=datetime.now(UTC),
        )

    def _usual(self) -> dict[str, float]:
        """Recent durations of jobs by state; refreshed every few seconds."""
        if clock.now() >= self._usual_due:
            self._usual_s, self._usual_due = glance.usual(self._queue.database, self._identity.shape), clock.now() + USUAL_S
        return self._usual_s

    def _claim(self) -> float:
        key = self._control.begin_claim()
        faults.point("claim.before_post")
        answer = self._orchestrator.claim(self._identity.mode, claim_body(self._identity, self._news.gpu_class), key)
        faults.point("claim.after_answer")
        if answer.kind != "ok":
            return self._failed(answer.text)
        payload = answer.body.get("job")
        if payload is None and (answer.body.get("error") or "job" not in answer.body):
            return self._failed(f"it answered {str(answer.body.get('error') or answer.body)[:100]!r}")
        if payload is None:
            self._control.end_claim(key)
            self._worked("no job")
            return self._rhythm.poll_interval_s
        new = arrived(payload, self._identity)
        if new is None:
            self._control.end_claim(key)
            return self._failed("it sent a job without a valid id, which cannot be reported")
        job, fresh = self._queue.add(new, intent=key)
        faults.point("claim.after_commit")
        self._worked(f"job {job.id[:200]}")
        if new.error is not None and job.state == "failed":
            log.warning("refused %.200s: %s", job.id, new.error["message"])
        else:
            log.info("claimed %.200s%s, round %d", job.id, "" if fresh else f" again (it is {job.state})", job.round)
        return 0.0

    def _worked(self, result: str) -> None:
        if self._failures:
            log.info("claims are working again")
        self._failures, self._said = 0, ""
        self._news.claim = {**self._news.claim, "at": clock.utc(), "result": result}

    def _failed(self, text: str) -> float:
        """Note that no job is available; logged once per change. Returns how long to wait."""
        self._failures += 1
        if text != self._said:
            log.warning("could not claim a job: %s", text)
            self._said = text
        self._news.claim = {**self._news.claim, "at": clock.utc(), "result": text}
        return max(pause.before_try(self._failures), min(self._rhythm.poll_interval_s, pause.MAX_S))


def claim_body(identity: Identity, gpu_class: str) -> dict[str, Any]:
    """The body of a claim (PROTOCOL §3)."""
    if identity.mode == "buffer":
        return {"worker_id": identity.worker_id}
    return {"worker_id": identity.worker_id, "worker_type": identity.worker_type, "gpu_class": gpu_class}


def arrived(payload: Any, identity: Identity) -> NewJob | None:
    """The job to add from an orchestrator's answer; None if it has no id to report it by.

    A job that cannot be run, for whatever reason, is added as failed, so that the orchestrator is told why.
    """
    if not isinstance(payload, dict):
        return None
    new = intake.new_job(payload, identity.shape, identity.mode)
    if not intake.is_usable(payload.get("musetalk_job_id")):
        if new.buffer_job_id is None or identity.mode != "buffer":
            return None
        new = replace(new, id=f"buffer:{new.buffer_job_id}")
    return new
