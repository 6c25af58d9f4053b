"""The JSON API of the page's server, /api/v1: the pages for programs. The read part is here; see `orders` for actions.

Requests carry `Authorization: Bearer` with the password or token. Every GET answer has an ETag; an error is
{"error": {"code", "message", "hint"}}. No secret and no signed link leaves here: every text is masked.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import flask

import answers
import supervision
from admin import doctor, gpu, logs
from admin.actions import operator, refusing
from jobqueue.job import FINISHED, WAITING, WORKING, Job
from support import log_files, setting

pages = flask.Blueprint("api", __name__, url_prefix="/api/v1")

STATES = FINISHED | WAITING | WORKING
MAX_ROWS = 500

View = Callable[..., Any]


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return str(flask.current_app.extensions["worker"].mask(value))
    if isinstance(value, dict):
        return {_masked(str(name)): _masked(part) for name, part in value.items()}
    return [_masked(part) for part in value] if isinstance(value, list | tuple) else value


def answer(body: Any, status: int = 200) -> flask.Response:
    text = json.dumps(_masked(body), ensure_ascii=False, default=str, allow_nan=False)
    return flask.Response(text + "\n", status, mimetype="application/json")


def get(path: str) -> Callable[[View], View]:
    """A GET route: its answer is masked and tagged."""

    def put(view: View) -> View:
        @functools.wraps(view)
        def look(**values: Any) -> flask.Response:
            response = answer(view(**values))
            response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:24])
            response.make_conditional(flask.request)
            return response

        pages.add_url_rule(path, view.__name__, look, methods=["GET"])
        return view

    return put


def known(job_id: str) -> Job:
    job: Job | None = flask.current_app.extensions["worker"].queue.get(job_id)
    if job is None:
        flask.abort(404, f"no job {job_id[:200]!r} on this worker; it may have run on another worker")
    return job


def _number(name: str, default: int, most: int) -> int:
    said = flask.request.args.get(name, str(default))
    if not said.isascii() or not said.isdigit() or len(said) > 19:
        flask.abort(400, f"{name}: must be a whole number")
    return min(int(said), most)


# ---- to look ----------------------------------------------------------------------------------------------------------------


@get("/status")
def status() -> dict[str, Any]:
    found = answers.status(flask.current_app.extensions["worker"].settings, operator())
    for said in found["said"].values():
        said.pop("age_s")  # `at` says it, and does not make every answer another one
    for program in found["programs"]:
        program.pop("up_s")
    return found


@get("/jobs")
def jobs() -> dict[str, Any]:
    """?state= (may be repeated) &q= &before= (the `next` of the page before) &limit="""
    states = tuple(flask.request.args.getlist("state"))
    if unknown := [state for state in states if state not in STATES]:
        flask.abort(400, f"state: got {unknown[0][:40]!r}; must be one of {', '.join(sorted(STATES))}")
    limit, text = _number("limit", 50, MAX_ROWS), flask.request.args.get("q", "")[:200]
    found = operator().queue.newest(states, text, _number("before", 2**62, 2**62), limit)
    return {
        "jobs": [answers.summary(job) for job in found],
        "next": found[-1].number if found and len(found) == limit else None,
    }


@get("/jobs/<path:job_id>/log")
def job_log(job_id: str) -> dict[str, Any]:
    worker = flask.current_app.extensions["worker"]
    piece = logs.of_job(worker.settings.data_dir / "logs", known(job_id).id, worker.mask)
    return {"lines": [vars(line) for line in piece.lines], "cut": piece.cut}


@get("/jobs/<path:job_id>")
def job(job_id: str) -> dict[str, Any]:
    outbox = operator().outbox
    return answers.detail(known(job_id), outbox.history(job_id), outbox.reports(job_id))


@get("/gpu")
def cards() -> dict[str, Any]:
    """What the cards do, and how they are, as the poller said it last."""
    said = operator().control.published().get("poller", {})
    return {"gpus": said.get("gpus") or [], "health": said.get("gpu_health") or []}


@get("/gpu/history")
def gpu_history() -> dict[str, Any]:
    """?range=20 min, 6 h or 24 h &after= (unix seconds)"""
    return gpu.history()


@get("/processes")
def processes() -> dict[str, Any]:
    with refusing():
        found = supervision.programs(flask.current_app.extensions["worker"].settings.run_dir)
    return {
        "programs": [{**vars(program), "up_s": round(program.up_s)} for program in found],
        "restarts": operator().control.restarts(),
    }


@get("/logs/<name>")
def log(name: str) -> dict[str, Any]:
    """?after= (the `after` of the answer before): what has been said since."""
    worker = flask.current_app.extensions["worker"]
    folder = worker.settings.data_dir / "logs"
    piece = logs.read(folder, name, flask.request.args.get("after", ""), worker.mask)
    if piece is None:
        flask.abort(404, f"no such log; there are {', '.join(log_files.names(folder)) or 'none yet'}")
    return {"lines": [vars(line) for line in piece.lines], "after": piece.after, "cut": piece.cut}


@get("/settings")
def settings() -> dict[str, Any]:
    return {"settings": [vars(one) for one in setting.all_of(flask.current_app.extensions["worker"].settings)]}


@get("/audit")
def audit() -> dict[str, Any]:
    """?q= &before= (an id) &limit="""
    limit, text = _number("limit", 50, MAX_ROWS), flask.request.args.get("q", "")[:200]
    return {"audit": operator().control.notes(limit, text, _number("before", 2**62, 2**62))}


@get("/doctor")
def examination() -> dict[str, Any]:
    """The output of `worker doctor --json`. One examination at a time: requests during a run get its result."""
    found = doctor.found(doctor.FRESH_S, doctor.MAX_WAIT_S)
    if found is None:
        flask.abort(503, "the checks are still running, or too many requests are waiting for them; try again")
    return found
