"""The report loop: sends the orchestrator the progress of jobs, and repeats their terminal report until it is acknowledged.

A terminal report is never lost: it stays in the outbox, on disk, until it is acknowledged. A running report may be lost; the
newest wins. One thread sends all reports in sequence, so that no running one can follow the end of its job.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, Literal

from jobqueue import clock, faults, pause
from jobqueue.database import ERRORS
from jobqueue.job import Event, Job, Report
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from poller import words
from poller.heed import heed
from poller.identity import Identity, News
from poller.orchestrator import Answer, Orchestrator

log = logging.getLogger(__name__)

#: A running job is reported again after this much progress or time (s) since the last report; if unchanged, after MAX_GAP_S.
STEP, MIN_GAP_S, MAX_GAP_S = 0.05, 2.0, 10.0
#: How often jobs are checked, in seconds: while there are some, and while there are none (the bell announces new ones).
BUSY_S, IDLE_S = 0.5, 1.0
#: Reports of one kind in a row before the other kind gets its turn.
MAX_IN_A_ROW = 8
#: The longest path that servers accept: an id beyond that is rejected permanently.
MAX_ID = 4000
#: How long terminal reports are still sent after SIGTERM, in seconds.
FLUSH_S = 5.0

#: Where a report is sent: the progress path, or the buffer's status path.
Place = Literal["progress", "status"]


@dataclass(frozen=True, kw_only=True)
class _Said:
    """The last running report of a job."""

    progress: float
    phase: str
    frames_done: int | None
    at: float  # boot clock, s


class Reporting:
    """The loop's state: what was reported about running jobs, and which part of an end has been acknowledged."""

    def __init__(self, queue: Queue, outbox: Outbox, orchestrator: Orchestrator | None, identity: Identity, news: News) -> None:
        self._queue, self._outbox, self._orchestrator = queue, outbox, orchestrator
        self._identity, self._news = identity, news
        self._said: dict[tuple[str, int], _Said] = {}
        self._unwanted: set[tuple[str, int]] = set()  # their running reports are answered with "gone"
        self._half_told: set[tuple[int, str]] = set()
        self._failing = ""
        self._reached: bool | None = None  # by the last heartbeat that this loop saw
        self._talking = threading.Lock()  # `poller.ask` also reports running jobs

    def loop(self, stop: threading.Event) -> None:
        """Report until `stop` is set, then flush what is possible."""
        while not stop.is_set():
            mark = self._queue.bell.mark()
            try:
                wait_s = self.step()
            except ERRORS as error:
                log.warning("the queue could not be read: %s", error)
                wait_s = IDLE_S
            if wait_s > 0 and not stop.is_set():
                self._queue.bell.wait(mark, wait_s)
        self._flush()

    def _flush(self) -> None:
        deadline = clock.now() + FLUSH_S
        try:
            while clock.now() < deadline and self._tell_ends():
                pass
        except ERRORS as error:
            log.warning("the queue could not be read: %s", error)

    def step(self) -> float:
        """Send what is due. Returns how long to wait before the next check, in seconds."""
        if self._is_back():
            self._outbox.hurry()
        more = self._tell_ends()
        unfinished = self._queue.unfinished()
        self._forget(unfinished)
        reached = self._tell_running(unfinished)
        if more and reached:
            return 0.0
        return BUSY_S if unfinished else IDLE_S

    def _is_back(self) -> bool:
        """Whether the orchestrator answers again: waiting reports may then skip their back-off."""
        ok, before = self._news.orchestrator.get("ok"), self._reached
        self._reached = ok
        return before is False and ok is True

    # ---- ends -------------------------------------------------------------------------------------------------------------

    def _tell_ends(self) -> bool:
        """Send due terminal reports. Returns whether to continue at once: there were some, and all were accepted."""
        for count in range(MAX_IN_A_ROW):
            due = self._outbox.due(limit=1)  # reread each time: the job may have been sent again in the meantime
            if not due:
                return False
            if not self._tell_end(*due[0]):
                return False
            log.debug("reported the end of %d jobs in a row", count + 1)
        return True

    def _tell_end(self, event: Event, job: Job) -> bool:
        """Send one terminal report to all recipients. False if it must be retried."""
        orchestrator = self._orchestrator
        if orchestrator is None or job.source == "local":
            self._outbox.sent(event, "nobody to tell")
            return True
        faults.point("report.before_post")
        bodies, texts, missing = self._bodies(job), [], False
        with self._talking:
            for place, body in bodies:
                if (event.id, place) in self._half_told:
                    continue
                answer = self._post(orchestrator, place, job, body)
                texts.append(f"{place}: {answer.text}")
                if settled(answer, job):
                    self._half_told.add((event.id, place))
                else:
                    missing = True
        if missing:
            self._again(event, job, "; ".join(texts))
            return False
        faults.point("report.after_answer")
        self._outbox.sent(event, "; ".join(texts))
        faults.point("report.after_commit")
        self._half_told -= {(event.id, place) for place, _ in bodies}
        self._failing = ""
        log.info("the end of job %.200s is acknowledged: %s (%s)", job.id, job.state, "; ".join(texts))
        return True

    def _again(self, event: Event, job: Job, text: str) -> None:
        delay_s = pause.before_try(event.tries + 1)
        self._outbox.again(event, text, delay_s)
        if text != self._failing:
            log.warning("the end of job %.200s (%s) was not accepted, it will be retried: %s", job.id, job.state, text)
            self._failing = text

    def _bodies(self, job: Job) -> list[tuple[Place, dict[str, Any]]]:
        """The recipients and bodies of a terminal report."""
        gpu_class = self._news.gpu_class
        told: tuple[Place, dict[str, Any]] = ("progress", words.ended(job, self._identity, gpu_class, self._outbox.told(job)))
        if job.source == "buffer" and job.buffer_job_id is not None:
            return [("status", words.buffer_ended(job, gpu_class)), told]
        return [told]

    def _post(self, orchestrator: Orchestrator, place: Place, job: Job, body: dict[str, Any]) -> Answer:
        """Send one report, and note that it was sent. With `_talking` held."""
        at = clock.utc()
        if place == "status":
            answer = orchestrator.buffer_status(str(job.buffer_job_id), body)
        else:
            answer = orchestrator.progress(job.engine, job.id, body)
        if job.finished:
            faults.point("report.before_note")
        report = Report(
            job=job.id,
            round=job.round,
            place=place,
            said=body["status"],
            progress=body.get("progress"),
            phase=body.get("phase"),
            status=answer.status,
            words=answer.words,
            took_ms=answer.took_ms,
            at=at,
        )
        self._outbox.keep(report)
        return answer

    # ---- running jobs -----------------------------------------------------------------------------------------------------

    def _tell_running(self, unfinished: list[Job]) -> bool:
        """Send due progress reports. Returns whether the orchestrator was reachable, if known."""
        if self._orchestrator is None:
            return True
        due = [job for job in unfinished if job.source != "local" and self._is_due(job)]
        due.sort(key=lambda job: self._said[_key(job)].at if _key(job) in self._said else 0.0)
        return all(self.tell_running(job.id).kind != "down" for job in due[:MAX_IN_A_ROW])

    def tell_running(self, job_id: str) -> Answer:
        """Send one running report, act on the answer, and remember what was sent. A job that has ended meanwhile is skipped."""
        with self._talking:
            job = self._queue.get(job_id)
            if job is None or job.finished or self._orchestrator is None:
                return Answer(kind="ok", words="nothing to tell")
            body = words.running(job, self._identity)
            before = self._said.get(_key(job))
            if before is not None:
                body["progress"] = max(body["progress"], before.progress)
            answer = self._post(self._orchestrator, "progress", job, body)
            self._said[_key(job)] = _Said(
                progress=body["progress"], phase=body["phase"], frames_done=job.frames_done, at=clock.now()
            )
            if answer.kind == "gone":
                self._unwanted.add(_key(job))
        heed(self._queue, answer.body, job, [job])
        return answer

    def _is_due(self, job: Job) -> bool:
        if _key(job) in self._unwanted:
            return False
        before = self._said.get(_key(job))
        if before is None:
            return True
        body = words.running(job, self._identity)
        passed_s = clock.now() - before.at
        if body["progress"] - before.progress >= STEP or body["phase"] != before.phase:
            return True
        changed = body["progress"] > before.progress or job.frames_done != before.frames_done
        return passed_s >= (MIN_GAP_S if changed else MAX_GAP_S)

    def _forget(self, unfinished: list[Job]) -> None:
        keys = {_key(job) for job in unfinished}
        with self._talking:
            self._said = {key: said for key, said in self._said.items() if key in keys}
            self._unwanted &= keys


def settled(answer: Answer, job: Job) -> bool:
    """Whether a terminal report is settled: accepted, no longer wanted, or with an id that no server accepts."""
    absurd = len(job.id) > MAX_ID or len(job.buffer_job_id or "") > MAX_ID
    return answer.kind in ("ok", "gone") or (absurd and (answer.kind == "refused" or answer.status == 414))


def _key(job: Job) -> tuple[str, int]:
    return job.id, job.round
