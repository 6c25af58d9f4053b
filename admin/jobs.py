"""The list of jobs, and a job with its timeline and videos."""

from __future__ import annotations

import flask

from admin import files, words
from admin.live import live
from jobqueue import clock
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


@pages.get("/jobs")
def index() -> flask.Response:
    return live(_list)


def _list() -> str:
    group = flask.request.args.get("state", "all")
    text, before = flask.request.args.get("q", "")[:200], flask.request.args.get("before", 2**62, type=int)
    queue = flask.current_app.extensions["worker"].queue
    found = queue.newest(GROUPS.get(group, ()), text, max(0, min(before, 2**62)), PAGE + 1)
    counts = queue.counts()
    totals = {name: sum(counts.get(state, 0) for state in states or counts) for name, states in GROUPS.items()}
    older = found[PAGE - 1].number if len(found) > PAGE else None
    return flask.render_template("jobs.html", jobs=found[:PAGE], older=older, group=group, q=text, totals=totals)


@pages.get("/jobs/<path:job_id>")
def detail(job_id: str) -> flask.Response:
    return live(lambda: _detail(_job(job_id)))


def _detail(job: Job) -> str:
    worker = flask.current_app.extensions["worker"]
    events = worker.outbox.history(job.id)
    rows, present = words.timeline(events, clock.utc()), files.present(worker.settings.data_dir, job)
    end = events[-1] if events and job.finished else None
    left_s = words.left_s(job, clock.utc())
    return flask.render_template("job.html", job=job, rows=rows, files=present, end=end, left=left_s)


@pages.get("/jobs/<path:job_id>/files/<kind>")
def file(job_id: str, kind: str) -> flask.Response:
    data_dir, whole = flask.current_app.extensions["worker"].settings.data_dir, "download" in flask.request.args
    return files.send(data_dir, _job(job_id), kind, whole)


def _job(job_id: str) -> Job:
    job: Job | None = flask.current_app.extensions["worker"].queue.get(job_id)
    if job is None:
        flask.abort(404)
    return job
