"""The worker API (PROTOCOL §3): heartbeats, claims, reports."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from orchestrator import database as sql
from orchestrator import jobs, reports, wire
from orchestrator.context import here, json_body
from orchestrator.fields import InvalidBody, checked_body
from orchestrator.transaction import ERRORS, Transaction

log = logging.getLogger(__name__)

pages = Blueprint("workers", __name__, url_prefix="/internal")

MAX_KEY = 255


@pages.post("/main/workers/<worker>/heartbeat")
def main_heartbeat(worker: str) -> ResponseReturnValue:
    return _heartbeat(worker, "main")


@pages.post("/buffer/workers/<worker>/heartbeat")
def buffer_heartbeat(worker: str) -> ResponseReturnValue:
    return _heartbeat(worker, "buffer")


@pages.post("/main/jobs/claim")
def main_claim() -> ResponseReturnValue:
    """Says itself what a main worker is told while the database is away."""
    try:
        return {"job": _claim("main"), "error": None}
    except ERRORS as error:
        log.error("the database does not answer: %s", error)
        return {"job": None, "error": "database_unavailable"}


@pages.post("/buffer/jobs/claim")
def buffer_claim() -> ResponseReturnValue:
    return {"job": _claim("buffer")}


@pages.post("/jobs/<job_id>/progress")
def musetalk_progress(job_id: str) -> ResponseReturnValue:
    return _report("progress", job_id, "musetalk")


@pages.post("/videogen/jobs/<job_id>/progress")
def fastwan_progress(job_id: str) -> ResponseReturnValue:
    return _report("progress", job_id, "fastwan")


@pages.post("/buffer/jobs/<buffer_job_id>/status")
def buffer_status(buffer_job_id: str) -> ResponseReturnValue:
    return _report("buffer status", buffer_job_id, None)


def _heartbeat(worker: str, queue: str) -> ResponseReturnValue:
    body = checked_body(json_body(), wire.HEARTBEATS[queue])
    held: list[str] | None = body.get("job_ids")
    if held is not None and body.get("current_job_id"):
        held = [*held, body["current_job_id"]]

    def note(at: Transaction) -> list[str]:
        sql.keep_beat(at, worker, queue, body)
        jobs_here = sql.assigned(at, worker)
        for job in jobs_here:
            if held is None or job["id"] in held or job["buffer_job_id"] in held:
                sql.vouch(at, job["id"])
        return [job["id"] for job in jobs_here if job["cancel_requested"]]

    cancel = here().database.write(note, durable=False)
    return {"detail": "ok", **({"cancel_job_ids": cancel} if cancel else {})}


def _claim(queue: str) -> dict[str, Any] | None:
    body = checked_body(json_body(), wire.CLAIMS[queue])
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise InvalidBody({"Idempotency-Key": f"must be 1 to {MAX_KEY} characters"})
    here().silence.look()
    job = jobs.claim(here().database, body["worker_id"], buffer=queue == "buffer", key=key)
    return wire.claimed(job) if job else None


def _report(path: reports.Path, key: str, engine: str | None) -> ResponseReturnValue:
    shape = wire.PROGRESS if path == "progress" else wire.BUFFER_STATUS
    body = wire.report(json_body(), shape)
    verdict = reports.receive(here().database, reports.Report(path=path, key=key, engine=engine, body=body))
    return verdict.answer, verdict.status
