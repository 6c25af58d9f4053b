"""What the page of one job shows: its way beside what is usual, its files, its error, its log, its reports."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import flask

from admin import draw, files, hints, logs, words
from admin.live import settled
from jobqueue import clock, glance
from jobqueue.job import FINISHED, Event, Job

#: The newest lines of the log that the page has.
LOG_LINES = 200
#: Points of the lines that say what the GPU did meanwhile.
POINTS = 60


def marks(job: Job) -> tuple[Any, ...]:
    """What may change beside a move: how far it is, which files are there, the newest frame."""
    data_dir = flask.current_app.extensions["worker"].settings.data_dir
    return (job.updated_at, files.frame(data_dir, job), files.present(data_dir, job))


def seen(job: Job) -> dict[str, Any]:
    """The page's values."""
    worker, now = flask.current_app.extensions["worker"], clock.utc()
    data_dir, database = worker.settings.data_dir, worker.queue.database
    events = worker.outbox.history(job.id)
    newest = [event for event in events if event.round == job.round]
    usual = settled(f"usual {job.engine}", lambda: glance.usual(database, job.engine))
    return {
        "job": job,
        "rows": words.timeline(newest, now),
        "usual": usual,
        "spent": words.seconds(job.created_at, job.finished_at or now) if newest else None,
        "earlier": _earlier(events, job.round),
        "files": files.present(data_dir, job),
        "frame": files.frame(data_dir, job),
        "size": words.picture_size(job),
        "reports": [event for event in events if event.ends],
        "left": words.left_s(job, now),
        "log": logs.of_job(data_dir / "logs", job.id, worker.mask, LOG_LINES),
        "acts": glance.acts(database, job.id),
        "gpu": _gpu(worker.samples, job, newest, now),
        "hints": hints,
    }


def _earlier(events: list[Event], round_: int) -> list[Event]:
    """How earlier rounds ended."""
    return [event for event in events if event.round < round_ and event.state in FINISHED]


def _gpu(samples: Any, job: Job, events: list[Event], now: str) -> list[dict[str, Any]]:
    """What each card did while the job was on it; nothing if that is longer ago than what is kept."""
    if not job.started_at:
        return []
    ends = [event.at for event in events if event.state in ("generated", *FINISHED)]
    since, until = (datetime.fromisoformat(at).timestamp() for at in (job.started_at, ends[0] if ends else now))
    step = max(1, int((until - since) / POINTS))
    step = step if step < 10 else step // 10 * 10
    found = []
    lines, most = samples.columns(int(since) - step, step), samples.extremes(since, until)
    for card, columns in lines.items():
        loads = [load for at, load in zip(columns["at"], columns["load"], strict=True) if at <= until]
        if any(load is not None for load in loads) and card in most:
            found.append({"card": card, "line": draw.line(loads, 100), **most[card]})
    return found
