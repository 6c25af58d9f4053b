"""The first page: mode, current jobs, GPU, links, the last day, the last jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import flask

from admin import draw, files, words
from admin.live import head, live, look, said, settled, words_of
from jobqueue import clock, glance, listing
from jobqueue.control import STALE_S
from jobqueue.samples import card_of

pages = flask.Blueprint("overview", __name__)

#: The sparkline of a card: so many seconds, a point for each so many.
SPARK_S, SPARK_STEP_S = 1200, 20
#: The last jobs.
ENDED = listing.Wanted(states=("succeeded", "failed", "cancelled"))
#: Programs whose silence matters here.
PROGRAMS = ("poller", "inference", "uploader")


@pages.get("/")
def page() -> flask.Response:
    worker = flask.current_app.extensions["worker"]
    newest = worker.samples.mark()[0] // SPARK_STEP_S
    return live(
        lambda: flask.render_template("overview.html", **_seen()),
        look().version.progress,
        words_of(*PROGRAMS),
        silent(),
        newest,
    )


@pages.app_context_processor
def header() -> dict[str, Any]:
    """What every page's head shows."""
    return {"mode": None} if not flask.g.get("session") else {**head(), "words": words}


def silent() -> list[str]:
    """The programs that have not said anything for too long."""
    return [name for name in PROGRAMS if said().get(name, {}).get("age_s", STALE_S) >= STALE_S]


def _seen() -> dict[str, Any]:
    worker, now = flask.current_app.extensions["worker"], clock.utc()
    current, poller = worker.queue.unfinished(), said().get("poller", {})
    return {
        **settled("overview", _counted),
        "current": [(job, words.left_s(job, now), files.frame(worker.settings.data_dir, job)) for job in current[:6]],
        "more": max(0, len(current) - 6),
        "share": glance.running(worker.queue.database),
        "price": worker.settings.PRICE_PER_HOUR,
        "claim": poller.get("claim") or {},
        "gpus": poller.get("gpus") or [],
        "sparks": _sparks(worker.samples),
        "card_of": card_of,
        "host": poller.get("system_info") or {},
        "orchestrator": poller.get("orchestrator") or {},
        "orchestrator_url": worker.settings.orchestrator_url,
        "store": said().get("uploader", {}),
        "inference": said().get("inference", {}),
        "silent": silent(),
    }


def _counted() -> dict[str, Any]:
    """What changes only when a job moves, or with the minute."""
    worker = flask.current_app.extensions["worker"]
    database, day_ago = worker.queue.database, clock.utc(-24 * 3600)
    last = listing.lines(database, ENDED, 8)
    return {
        "counts": worker.queue.counts(),
        "reports": worker.outbox.waiting(),
        "ended": glance.ended(database, day_ago),
        "busy": _busy(glance.runs(database, clock.utc(-3600)), clock.utc()),
        "day": _day(glance.by_hour(database, day_ago)),
        "last": last,
        "took_s": _took_s(last),
    }


def _sparks(samples: Any) -> dict[str, Any]:
    """By card: the line of its load over the last minutes, and in words."""
    now = int(datetime.now(UTC).timestamp())
    found = {}
    for card, columns in samples.columns(now - SPARK_S, SPARK_STEP_S).items():
        at = dict(zip(columns["at"], columns["load"], strict=True))
        first = (now - SPARK_S) // SPARK_STEP_S * SPARK_STEP_S
        loads = [at.get(first + n * SPARK_STEP_S) for n in range(SPARK_S // SPARK_STEP_S + 1)]
        known = [load for load in loads if load is not None]
        if known:
            found[card] = (draw.line(loads, 100), f"on average {sum(known) / len(known):.0f} % in the last 20 minutes")
    return found


def _busy(runs: list[dict[str, Any]], now: str) -> float:
    """The share of the last hour in which a job was on the GPU."""
    first = clock.utc(-3600)
    spans = sorted((max(run["since"], first), min(run["until"] or now, now)) for run in runs)
    spent, free = 0.0, first
    for since, until in spans:  # one job is prepared while another one is on the GPU
        since = max(since, free)
        if until > since:
            spent, free = spent + words.seconds(since, until), until
    return min(1.0, spent / 3600)


def _day(hours: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The last 24 hours as bars, and what they say."""
    this = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    names = [(this - timedelta(hours=23 - n)).isoformat()[:13] for n in range(24)]
    counts = [(hours.get(name, {}).get("succeeded", 0), hours.get(name, {}).get("failed", 0)) for name in names]
    good, bad = draw.bars(counts)
    return {"good": good, "bad": bad, "most": max(map(sum, counts)), "hours": list(zip(names, counts, strict=True))}


def _took_s(jobs: list[listing.Line]) -> float | None:
    """Seconds of GPU that a finished job takes, of the newest ones."""
    spans = [
        words.seconds(job.started_at, job.finished_at)
        for job in jobs
        if job.state == "succeeded" and job.started_at and job.finished_at
    ]
    return sum(spans) / len(spans) if spans else None
