"""The client API: submit, list, show and cancel jobs; list workers."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue

from orchestrator import database as sql
from orchestrator import jobs, wire
from orchestrator.context import here, json_body
from orchestrator.fields import InvalidBody

pages = Blueprint("operators", __name__)

MAX_LISTED = 1000


@pages.get("/health")
def health() -> ResponseReturnValue:
    """Asked without the key, by whoever waits for the start."""
    return {"status": "ok"}


@pages.post("/jobs")
def submit() -> ResponseReturnValue:
    job, new = jobs.submit(here().database, wire.submission(json_body()))
    return wire.shown(job), 201 if new else 200


@pages.get("/jobs")
def list_jobs() -> ResponseReturnValue:
    state, limit = request.args.get("state"), request.args.get("limit", "100")
    wrong = {}
    if state is not None and state not in jobs.STATES:
        wrong["state"] = f"{state[:40]}: must be {' or '.join(jobs.STATES)}"
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MAX_LISTED):
        wrong["limit"] = f"{limit[:40]}: must be a whole number, 1 to {MAX_LISTED}"
    if wrong:
        raise InvalidBody(wrong)
    return {"jobs": [wire.shown(job) for job in sql.jobs(here().database, state, int(limit))]}


@pages.get("/jobs/<job_id>")
def look_at(job_id: str) -> ResponseReturnValue:
    found = sql.job_in_full(here().database, job_id)
    if found is None:
        abort(404, f"no such job: {job_id}")
    job, history, reports = found
    told = [{**report, "body": json.loads(report["body"]), "accepted": bool(report["accepted"])} for report in reports]
    return {**wire.shown(job), "history": history, "reports": told}


@pages.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> ResponseReturnValue:
    """200 if it is cancelled now, 202 if its worker has still to give it up."""
    job = jobs.cancel(here().database, job_id)
    if job is None:
        abort(404, f"no such job: {job_id}")
    return wire.shown(job), 200 if job["state"] == "cancelled" else 202


@pages.get("/workers")
def list_workers() -> ResponseReturnValue:
    return {"workers": [_worker(row) for row in sql.workers(here().database)]}


def _worker(row: dict[str, Any]) -> dict[str, Any]:
    silent_s = None if row["silent_s"] is None else round(max(0.0, row["silent_s"]), 3)
    return {
        "worker_id": row["id"],
        "queue": row["queue"],
        "online": silent_s is not None and silent_s < here().rules.silence_s,
        "silent_s": silent_s,
        "last_heartbeat_at": row["beat_at"],
        "last_heartbeat": json.loads(row["beat"]),
    }
