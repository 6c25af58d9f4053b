"""How a worker's report is handled. `judge` decides from the job and the report alone; `receive` stores it.

A terminal report is accepted once: from the worker that has the job, while it is unfinished. A repetition is fine (the worker
missed our answer); a different outcome or a former worker's report is rejected, so that the worker stops repeating it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, Literal

from jobqueue.database import Row
from orchestrator import database as sql
from orchestrator import jobs
from orchestrator.transaction import Database, Transaction

log = logging.getLogger(__name__)

Path = Literal["progress", "buffer status"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that `wire` has checked.

    path     where it came in: progress names the job by its id and its engine, buffer status by its buffer_job_id
    engine   what the progress path is for; None on the buffer path
    """

    path: Path
    key: str
    engine: str | None
    body: dict[str, Any]

    @property
    def terminal(self) -> bool:
        return bool(self.body["status"] != "running")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`word` as in the report table, or running; `status` and `answer` are what the worker hears."""

    word: Literal["accepted", "repeated", "conflict", "superseded", "unknown", "running"]
    status: int = 200
    detail: str = "ok"
    cancel: bool = False

    @property
    def answer(self) -> dict[str, Any]:
        return {"detail": self.detail, **({"cancel": True} if self.cancel else {})}


def receive(database: Database, report: Report) -> Verdict:
    """Take a report in. A terminal one is on disk before this returns; a running one may be lost with the machine."""

    def write(at: Transaction) -> Verdict:
        job = sql.job(at, report.key) if report.path == "progress" else sql.buffer_job(at, report.key)
        verdict = judge(job, report)
        if report.terminal:
            sql.keep_report(at, job["id"] if job else report.key, report.path, report.body, verdict.word)
        if job and verdict.word == "accepted":
            _finish(at, job, report.body)
        elif job and verdict.word == "running" and job["state"] not in jobs.FINISHED and job["worker"] == _sender(report):
            _go_on(at, job, report.body)
        return verdict

    verdict = database.write(write, durable=report.terminal)
    if report.terminal:
        log.info("job %s said %s: %s", report.key, report.body["status"], verdict.word)
    return verdict


def judge(job: Row | None, report: Report) -> Verdict:
    """What to think of a report."""
    if job is None:
        return Verdict(word="unknown", status=404, detail=f"no such job: {report.key}")
    if report.engine not in (None, job["engine"]):
        return Verdict(
            word="unknown", status=404, detail=f"{report.key} is a {job['engine']} job; it has a different progress path"
        )
    sender = _sender(report)
    former = job["worker"] is None if sender is None else job["worker"] != sender
    if not report.terminal:
        gone = former or job["state"] in ("failed", "cancelled")
        return Verdict(word="running", cancel=gone or (job["state"] != "succeeded" and bool(job["cancel_requested"])))
    if former:
        return Verdict(word="superseded", status=409, detail=f"job {job['id']} is no longer {sender or 'yours'}")
    if job["state"] not in jobs.FINISHED:
        return Verdict(word="accepted")
    if (job["state"] == "succeeded") == (report.body["status"] == "succeeded"):
        return Verdict(word="repeated")
    return Verdict(word="conflict", status=409, detail=f"job {job['id']} has {job['state']} already")


def _sender(report: Report) -> str | None:
    """The sender; the buffer path names none, and is accepted while any worker has the job."""
    return report.body.get("worker_id")


def _finish(at: Transaction, job: Row, body: dict[str, Any]) -> None:
    succeeded = body["status"] == "succeeded"
    state = "succeeded" if succeeded else "cancelled" if body["error"] == jobs.CANCELLED else "failed"
    outcome = jobs.outcome(
        error=None if succeeded else body["error"],
        detail=None if succeeded else body["error"],
        output_url=body["output_url"] if succeeded else None,
        metrics=_as_text(body.get("metrics")),
    )
    sql.finish(at, job["id"], state, outcome)


def _go_on(at: Transaction, job: Row, body: dict[str, Any]) -> None:
    sql.set_running(at, job["id"], float(body["progress"]), body["phase"], _as_text(body.get("metrics")))


def _as_text(metrics: dict[str, Any] | None) -> str | None:
    return None if metrics is None else json.dumps(metrics)
