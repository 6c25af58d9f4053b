"""The heartbeat loop: tells the orchestrator every few seconds that we are alive, whatever the rest of the worker does.

Nothing in this loop can block: its data is read elsewhere (`poller.look`), and each heartbeat is sent in its own thread, so
that a hanging orchestrator or DNS server delays no later one.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from jobqueue import clock
from jobqueue.database import ERRORS
from jobqueue.job import BEFORE_GPU, Job
from jobqueue.queue import Queue
from poller.heed import heed
from poller.identity import Identity, News
from poller.look import Look, View
from poller.orchestrator import Answer, Orchestrator

log = logging.getLogger(__name__)

#: Maximum number of heartbeats in flight; if all of them hang, the next one is skipped.
MAX_BEATS = 3
#: How long the first heartbeat waits for the first readings, in seconds.
FIRST_LOOK_S = 2.0

#: A job that is waiting for the GPU or on it makes the worker busy; one that is only being uploaded does not.
_BUSY_STATES = ("generating", *BEFORE_GPU)


class Heartbeat:
    """The loop's state: whether extra fields are accepted, and the result of the last heartbeat."""

    def __init__(
        self, queue: Queue, orchestrator: Orchestrator, look: Look, identity: Identity, news: News, interval_s: float
    ) -> None:
        self._queue, self._orchestrator, self._look = queue, orchestrator, look
        self._identity, self._news, self._interval_s = identity, news, interval_s
        self._began = clock.now()
        self._bare = False
        self._free = threading.Semaphore(MAX_BEATS)
        self._newest = self._left_out = 0

    def loop(self, stop: threading.Event) -> None:
        """Beat until `stop` is set."""
        deadline = clock.now() + min(FIRST_LOOK_S, self._interval_s)
        while not self._look.view.seen and clock.now() < deadline and not stop.wait(0.05):
            pass
        number, due = 0, clock.now()
        while not stop.is_set():
            number += 1
            if self._free.acquire(blocking=False):
                threading.Thread(target=self._beat, args=(number,), name="beat", daemon=True).start()
            else:
                if not self._left_out:  # perhaps for hours: the count is logged at the end
                    log.warning("skipped a heartbeat: the last %d have not been answered", MAX_BEATS)
                self._left_out += 1
            due = max(due + self._interval_s, clock.now())  # after a pause of the whole container: at once
            stop.wait(max(0.0, due - clock.now()))

    def _beat(self, number: int) -> None:
        try:
            view, began = self._look.view, clock.now()
            answer = self._send(view)
            if number > self._newest:
                self._newest = number
                self._note(answer, clock.now() - began)
            if answer.body.get("cancel") or answer.body.get("cancel_job_ids"):
                self._heed(answer, view)
        finally:
            self._free.release()

    def _send(self, view: View) -> Answer:
        mode, worker_id = self._identity.mode, self._identity.worker_id
        mode = "main" if mode == "queue" else mode
        bare = bare_body(self._identity, view, self._news.gpu_class)
        if self._bare:
            return self._orchestrator.heartbeat(mode, worker_id, bare)
        full = bare | additions(self._identity, view, clock.now() - self._began)
        answer = self._orchestrator.heartbeat(mode, worker_id, full)
        if answer.status in (400, 422):
            log.warning("the orchestrator rejects extra fields in heartbeats; sending plain ones from now on: %s", answer.text)
            self._bare = True
            answer = self._orchestrator.heartbeat(mode, worker_id, bare)
        return answer

    def _note(self, answer: Answer, latency_s: float) -> None:
        ok = answer.kind == "ok"
        before = self._news.orchestrator
        if not ok and before.get("error") != answer.text:
            log.warning("the heartbeat failed: %s", answer.text)
        if ok and not before.get("ok"):
            log.info("the orchestrator answers heartbeats")
        if ok and self._left_out:
            log.info("%d heartbeats were skipped before that", self._left_out)
            self._left_out = 0
        self._news.orchestrator = {
            "ok": ok,
            "at": clock.utc(),
            "latency_ms": round(latency_s * 1000, 1),
            "error": None if ok else answer.text,
        }

    def _heed(self, answer: Answer, view: View) -> None:
        try:
            heed(self._queue, answer.body, current_job(view), view.unfinished)
        except ERRORS as error:
            log.warning("a cancellation could not be stored: %s", error)  # the next answer repeats it
        finally:
            self._queue.database.close()  # this thread's connection


def current_job(view: View) -> Job | None:
    """The job on the GPU, otherwise the next one."""
    for state in ("generating", "ready", "fetching", "claimed"):
        for job in view.unfinished:
            if job.state == state:
                return job
    return None


def bare_body(identity: Identity, view: View, gpu_class: str) -> dict[str, Any]:
    """The fields that every orchestrator understands (PROTOCOL §3)."""
    closed = any(flag in view.flags for flag in ("paused", "draining", "unfit"))
    busy = closed or not view.seen or any(job.state in _BUSY_STATES for job in view.unfinished)
    status = "busy" if busy else "idle"
    if identity.mode == "buffer":
        error = view.flags["unfit"].get("reason", "unfit") if "unfit" in view.flags else None
        return {"status": status, "gpu_class": gpu_class, "capacity": identity.capacity, "error": error}
    job = current_job(view)
    return {
        "status": status,
        "current_job_id": job.id if job else None,
        "provider": identity.provider,
        "gpu_class": gpu_class,
        "worker_type": identity.worker_type,
        "system_info": view.system_info,
    }


def additions(identity: Identity, view: View, uptime_s: float) -> dict[str, Any]:
    """The optional fields."""
    return {
        "gpus": view.gpus,
        "version": identity.version,
        "engine": view.inference.get("engine") or identity.engine,
        "mode": identity.mode,
        "paused": "paused" in view.flags,
        "draining": "draining" in view.flags,
        "healthy": "unfit" not in view.flags,
        "jobs_waiting": sum(job.state in BEFORE_GPU for job in view.unfinished),
        "jobs_done": view.counts.get("succeeded", 0),
        "jobs_failed": view.counts.get("failed", 0),
        "uptime_sec": round(uptime_s, 1),
        "job_ids": [job.id for job in view.unfinished],
    }
