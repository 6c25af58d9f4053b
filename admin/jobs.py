"""The list of jobs, a job with its timeline and videos, and what can be done with it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import flask

from admin import words
from admin.overview import live, operator
from jobqueue import clock, spool
from jobqueue.job import Job

pages = flask.Blueprint("jobs", __name__)

GROUPS = {
    "all": (),
    "open": ("claimed", "fetching", "ready", "generating", "generated", "uploading"),
    "done": ("succeeded",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}
PAGE = 25
#: Files sent at once: a player that stops reading holds a thread, and the page needs some too.
SENDING = threading.BoundedSemaphore(4)
KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "audio/wav", b"ID3": "audio/mpeg"}


@pages.get("/jobs")
def index() -> flask.Response:
    group = flask.request.args.get("state", "all")
    text, before = flask.request.args.get("q", "")[:200], flask.request.args.get("before", type=int)
    queue = flask.current_app.extensions["worker"].queue
    found = queue.newest(GROUPS.get(group, ()), text, before, PAGE + 1)
    counts = queue.counts()
    totals = {name: sum(counts.get(state, 0) for state in states or counts) for name, states in GROUPS.items()}
    older = found[PAGE - 1].number if len(found) > PAGE else None
    page = flask.render_template("jobs.html", jobs=found[:PAGE], older=older, group=group, q=text, totals=totals)
    return live(page)


@pages.get("/jobs/<path:job_id>")
def detail(job_id: str) -> flask.Response:
    job, worker = _job(job_id), flask.current_app.extensions["worker"]
    events = worker.outbox.history(job.id)
    rows = words.timeline(events, clock.utc())
    files = [kind for kind in ("output", "video", "audio", "image") if _file(job, kind).is_file()]
    end = events[-1] if events and job.finished else None
    return live(flask.render_template("job.html", job=job, rows=rows, files=files, end=end))


@pages.post("/jobs/<path:job_id>/cancel")
def cancel(job_id: str) -> flask.typing.ResponseReturnValue:
    reason = flask.request.form.get("reason", "").strip()[:500]
    if not reason:
        flask.abort(400, "a reason is needed")
    operator().cancel(_job(job_id).id, reason)
    return flask.redirect(flask.url_for("jobs.detail", job_id=job_id), 303)


@pages.post("/jobs/<path:job_id>/retry")
def retry(job_id: str) -> flask.typing.ResponseReturnValue:
    operator().retry(_job(job_id).id)
    return flask.redirect(flask.url_for("jobs.detail", job_id=job_id), 303)


@pages.get("/jobs/<path:job_id>/files/<kind>")
def file(job_id: str, kind: str) -> flask.typing.ResponseReturnValue:
    """A job's video or sound, found by the job alone: never by a path that was asked for."""
    path = _file(_job(job_id), kind)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        flask.abort(404)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        flask.abort(404)
    with os.fdopen(handle, "rb") as opened:
        head = opened.read(12)
    if not SENDING.acquire(blocking=False):
        return flask.make_response("Too many videos are being watched at once.", 503, {"Retry-After": "5"})
    response = flask.send_file(path, mimetype=_type(head), conditional=True)
    response.call_on_close(SENDING.release)
    response.headers["Content-Security-Policy"] = "sandbox"
    return response


def _job(job_id: str) -> Job:
    job: Job | None = flask.current_app.extensions["worker"].queue.get(job_id)
    if job is None:
        flask.abort(404)
    return job


def _file(job: Job, kind: str) -> Path:
    data_dir = flask.current_app.extensions["worker"].settings.data_dir
    if kind == "output":
        return spool.output_file(data_dir, job.id)
    if kind in ("video", "audio", "image"):
        return spool.input_file(data_dir, job.id, kind)
    flask.abort(404)


def _type(head: bytes) -> str:
    """By content, from a short list: a stranger's file must never be taken for a page."""
    if head[4:8] == b"ftyp":
        return "video/mp4"
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), "application/octet-stream")
