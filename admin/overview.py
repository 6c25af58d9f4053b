"""The first page: mode, current jobs, GPU, links, last jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import flask

from admin import words
from admin.security import actor
from jobqueue import clock, glance

pages = flask.Blueprint("overview", __name__)

#: How old a program's last word may be before it is taken for silent, in seconds.
STALE_S = 30.0


@pages.get("/")
def page() -> flask.Response:
    return live(lambda: flask.render_template("overview.html", **_seen()))


@pages.app_context_processor
def header() -> dict[str, Any]:
    """What every page's head shows."""
    if not flask.g.get("session"):
        return {"mode": None}
    worker = flask.current_app.extensions["worker"]
    flags, said = worker.control.flags(), worker.control.published()
    now = mode(flags, said)
    running = [job for job in worker.queue.unfinished() if job.state == "generating"]
    summary = f"{running[0].progress:.0%}" if running and now == "active" else now
    return {"worker": worker.settings.worker_id, "mode": now, "summary": summary, "flags": flags, "words": words}


def mode(flags: dict[str, Any], said: dict[str, Any]) -> str:
    """One word for how the worker is, the worst first."""
    for flag, word in (("unfit", "unfit"), ("draining", "draining"), ("paused", "paused")):
        if flag in flags:
            return word
    inference = said.get("inference", {})
    if inference.get("age_s", STALE_S) >= STALE_S:
        return "stopped"
    return "active" if inference.get("model_loaded") else "starting"


def live(render: Callable[[], str]) -> flask.Response:
    """The page with an ETag made from the data, so that a look at what has not changed costs one query and no render."""
    etag = _etag()
    response = flask.make_response(("", 304) if etag in flask.request.if_none_match else render())
    response.set_etag(etag)
    return response


def _etag() -> str:
    worker, request = flask.current_app.extensions["worker"], flask.request
    # a program that falls silent changes no row, and what files are there no row at all: so a new page every minute
    silent = sorted((name, word["age_s"] >= STALE_S) for name, word in worker.control.published().items())
    parts = (glance.version(worker.queue.database), silent, clock.utc()[:16], request.full_path, actor(), worker.started)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _seen() -> dict[str, Any]:
    worker = flask.current_app.extensions["worker"]
    said, counts, now = worker.control.published(), worker.queue.counts(), clock.utc()
    current = worker.queue.unfinished()
    poller = said.get("poller", {})
    return {
        "current": [(job, words.left_s(job, now)) for job in current[:6]],
        "more": max(0, len(current) - 6),
        "counts": counts,
        "reports": worker.outbox.waiting(),
        "ended": glance.ended(worker.queue.database, words.utc_ago(24 * 3600)),
        "claim": poller.get("claim") or {},
        "last": worker.queue.newest(("succeeded", "failed", "cancelled"), limit=8),
        "gpus": poller.get("gpus") or [],
        "host": poller.get("system_info") or {},
        "orchestrator": poller.get("orchestrator") or {},
        "orchestrator_url": worker.settings.orchestrator_url,
        "store": said.get("uploader", {}),
        "inference": said.get("inference", {}),
        "silent": [name for name in ("poller", "inference", "uploader") if said.get(name, {}).get("age_s", STALE_S) >= STALE_S],
    }
