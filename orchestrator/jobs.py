"""What may happen to a job: submitted, handed out, cancelled, taken back; each is one transaction.

States: queued, claimed (handed out), running (its worker has reported progress), succeeded, failed, cancelled.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from jobqueue.database import Row
from orchestrator import database as sql
from orchestrator.transaction import Database, Transaction

log = logging.getLogger(__name__)

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
STATES = ("queued", "claimed", "running", "succeeded", "failed", "cancelled")
#: What a worker says as the error of a job that it was asked to give up (PROTOCOL §3), and ours for such a job.
CANCELLED = "cancelled"


class Conflict(Exception):
    """What is asked contradicts what is known. The message says both."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """silence_s: seconds without a sign of a job before another worker may have it; max_requeues: how often that is done;
    keep_days: days for which an ended job is kept, 0 for ever."""

    silence_s: float
    max_requeues: int
    keep_days: int


def submit(database: Database, submission: dict[str, Any]) -> tuple[Row, bool]:
    """Add a job that `wire` has checked. Returns it and whether it is new; raises Conflict for a taken id."""
    job_id = submission.get("musetalk_job_id") or str(uuid.uuid4())
    buffer_job_id = f"buffer-{uuid.uuid4()}" if submission.get("buffer") else None

    def add(at: Transaction) -> tuple[Row, bool]:
        known = sql.job(at, job_id)
        if known is None:
            sql.add_job(at, job_id, buffer_job_id, submission)
            return _there(sql.job(at, job_id)), True
        if json.loads(known["submission"]) != submission:
            raise Conflict(f"musetalk_job_id {job_id} belongs to another job; choose another id or leave it out")
        return known, False

    return database.write(add)


def claim(database: Database, worker: str, *, buffer: bool, key: str | None) -> Row | None:
    """Assign the oldest waiting job to a worker; None if there is none.

    The same key from the same worker gets the same job again, as long as the worker still has it.
    """

    def give(at: Transaction) -> Row | None:
        if key and (before := sql.job_of_key(at, worker, key, buffer=buffer)):
            return before
        given = sql.claim_next(at, worker, buffer=buffer)
        if given and key:
            sql.keep_key(at, worker, key, given)
        return given

    given = database.write(give)
    if given:
        log.info("assigned job %s to %s, attempt %d", given["id"], worker, given["attempts"])
    return given


def cancel(database: Database, job_id: str) -> Row | None:
    """Cancel a job: at once if it waits, else its worker is asked to give it up. None if there is no such job.

    Raises Conflict if it has succeeded or failed.
    """

    def ask(at: Transaction) -> Row | None:
        job = sql.job(at, job_id)
        if job is None:
            return None
        if job["state"] in ("succeeded", "failed"):
            raise Conflict(f"job {job_id} has {job['state']}; only an unfinished job can be cancelled")
        if job["state"] == "queued":
            sql.finish(at, job_id, "cancelled", outcome(error=CANCELLED, detail="cancelled before a worker claimed it"))
        else:
            sql.request_cancel(at, job_id)
        return sql.job(at, job_id)

    return database.write(ask)


def take_back(database: Database, rules: Rules, *, durable: bool) -> None:
    """Requeue the jobs that have been silent too long. Time in which no orchestrator listened does not count."""

    def put_back(at: Transaction) -> tuple[float, list[tuple[str, str]]]:
        gap_s = sql.listen(at, rules.silence_s / 2)
        return gap_s, [(job["id"], _put_back(at, job, rules)) for job in sql.unvouched(at, rules.silence_s)]

    gap_s, taken = database.write(put_back, durable=durable)
    if gap_s:
        log.warning("no orchestrator was listening for %.1f s; that time does not count as silence", gap_s)
    for job_id, what in taken:
        log.warning("job %s: %s", job_id, what)


def _put_back(at: Transaction, job: Row, rules: Rules) -> str:
    silent = f"no sign of it from {job['worker']} for {rules.silence_s:g} s"
    if job["cancel_requested"]:
        sql.finish(at, job["id"], "cancelled", outcome(error=CANCELLED, detail=silent))
        return f"{silent}; cancelled"
    if job["requeues"] >= rules.max_requeues:
        error = f"given up after {rules.max_requeues} requeues; the last time there was {silent}"
        sql.finish(at, job["id"], "failed", outcome(error=error, detail=error))
        return error
    sql.requeue(at, job["id"], silent)
    return f"{silent}; requeued"


def outcome(
    *, error: str | None = None, output_url: str | None = None, metrics: str | None = None, detail: str | None = None
) -> dict[str, Any]:
    """How a job ended, as `database.finish` wants it."""
    return {"error": error, "output_url": output_url, "metrics": metrics, "detail": detail}


def _there(row: Row | None) -> Row:
    if row is None:
        raise LookupError("a row that this transaction has written is not there")
    return row
