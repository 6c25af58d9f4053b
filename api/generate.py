"""POST /generate: one job, from request to result. The same id sent again joins the job or gets its result."""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import RequestEntityTooLarge

from api.health import fresh, full, refusal
from errors import first_line
from jobqueue import intake, outcome
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import Job
from jobqueue.queue import Queue

log = logging.getLogger(__name__)

#: Maximum number of waiting requests; fewer than the server has threads, so that probes are always answered.
MAX_WAITERS = 24
RETRY_AFTER_S = 10


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status, body, and after how many seconds to retry (None: the answer is final)."""

    status: int
    body: dict[str, Any]
    retry_after_s: int | None = None


class Generate:
    """Answers /generate; counts waiting requests."""

    def __init__(
        self,
        queue: Queue,
        control: Control,
        *,
        engine: str,
        gpu_class: str | None,
        patience_s: float,
        may_wait: Callable[[Job], bool],
    ) -> None:
        self._queue, self._control = queue, control
        self._engine, self._gpu_class = engine, gpu_class
        self._patience_s, self._may_wait = patience_s, may_wait
        self._places = threading.BoundedSemaphore(MAX_WAITERS)

    def answer(self, read_body: Callable[[], bytes], queue_job_id: str | None, peer: socket.socket | None) -> Answer:
        """Run a job to its end. queue_job_id: the platform's own id. peer: the client, to notice that it disconnected."""
        if not self._places.acquire(blocking=False):
            return _later(f"{MAX_WAITERS} requests are waiting already")
        try:
            payload, wrong = _parsed(read_body)
            wrong = wrong or intake.problems(payload, self._engine)
            if wrong:
                return _invalid(wrong)
            return self._run(payload, queue_job_id, peer)
        except ERRORS as error:
            log.warning("/generate: the queue is unavailable: %s", error)
            return _later(f"the queue is unavailable: {first_line(error)}")
        finally:
            self._places.release()

    def _run(self, payload: dict[str, Any], queue_job_id: str | None, peer: socket.socket | None) -> Answer:
        known = self._queue.get(payload["musetalk_job_id"])
        if known is None or known.state in ("failed", "cancelled"):
            reason = refusal(self._control.flags()) or full(self._queue)
            if reason:
                return _later(reason)
        new = intake.new_job(payload, self._engine, "queue", queue_job_id=queue_job_id and queue_job_id[:200])
        job, fresh_round = self._queue.add(new)
        if fresh_round:
            log.info("accepted %s", job.id)
        return self._wait(job, peer)

    def _wait(self, job: Job, peer: socket.socket | None) -> Answer:
        """The answer once the job has ended. The job continues even if the client disconnects."""
        deadline, unread = time.monotonic() + self._patience_s, False
        while True:
            mark = self._queue.bell.mark()
            try:
                if (found := self._queue.get(job.id)) is None:
                    body = _failed("unknown_error", "the job was deleted before its end was seen", retryable=True)
                    return Answer(status=500, body=body | {"stack_trace": None})
                job = found
                if job.finished:
                    return self._end(job)
            except ERRORS as error:  # the job continues, and so does the wait
                if not unread:
                    log.warning("the queue could not be read while waiting for %s: %s", job.id, error)
                unread = True
            if time.monotonic() > deadline:
                return _later(f"not done after {self._patience_s:.0f} s; the job continues, send it again to join it")
            if not self._may_wait(job):
                return _later("the worker is stopping; the job is kept, send it again to join it")
            if peer is not None and _has_left(peer):
                return _later("the client has disconnected")
            self._queue.bell.wait(mark)

    def _end(self, job: Job) -> Answer:
        if job.state == "succeeded":
            body = {
                "status": "succeeded" if job.engine == "fastwan" else "success",
                "output_url": job.result["output_url"],
                "musetalk_job_id": job.id,
                "metrics": outcome.metrics(job, self._gpu_class or self._card() or "cpu"),
            }
            return Answer(status=200, body=body)
        times = outcome.stage_times(job)
        if job.state == "cancelled":
            body = _failed("processing_error", "cancelled", details={"reason": job.cancel_reason}, times=times)
            return Answer(status=500, body=body | {"stack_trace": None})
        error = job.error or {}
        kind = error.get("error_type", "unknown_error")
        body = _failed(
            kind,
            error.get("message", "failed"),
            stage=error.get("stage") or "unknown",
            details=error.get("details") or {},
            retryable=bool(error.get("retryable")) and kind != "media_error",
            times=times,
        )
        if kind == "media_error":
            return Answer(status=422, body=body)
        return Answer(status=500, body=body | {"stack_trace": error.get("stack_trace")})

    def _card(self) -> str | None:
        gpus = fresh(self._control.published(), "poller").get("gpus") or [{}]
        name: str | None = gpus[0].get("name")
        return name


def _parsed(read_body: Callable[[], bytes]) -> tuple[dict[str, Any], dict[str, str]]:
    """The body, and errors of the body as a whole."""
    try:
        payload = json.loads(read_body())  # NaN is rejected with its field's name
    except RequestEntityTooLarge:
        return {}, {"body": "is too large; at most 1 MB of JSON"}
    except (ValueError, RecursionError):
        return {}, {"body": "is not valid JSON; must be an object with the job's fields"}
    return (payload, {}) if isinstance(payload, dict) else ({}, {"body": "must be a JSON object with the job's fields"})


def _invalid(wrong: dict[str, str]) -> Answer:
    message = "; ".join(f"{name}: {text}" for name, text in wrong.items())[:2000]
    return Answer(status=422, body=_failed("media_error", message, stage="validation", details={"fields": wrong}))


def _failed(
    kind: str,
    message: str,
    *,
    stage: str = "unknown",
    details: dict[str, Any] | None = None,
    retryable: bool = False,
    times: dict[str, float] | None = None,
) -> dict[str, Any]:
    return {
        "status": "failed",
        "error_type": kind,
        "error_message": message,
        "stage": stage,
        "details": details or {},
        "retryable": retryable,
        "stage_times": times or {},
    }


def _later(reason: str) -> Answer:
    return Answer(status=503, body=_failed("processing_error", reason, retryable=True), retry_after_s=RETRY_AFTER_S)


def _has_left(peer: socket.socket) -> bool:
    """Whether the client has closed its side; its request was read completely, so only EOF or another request can follow."""
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    try:
        return bool(poll.poll(0)) and not peer.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
