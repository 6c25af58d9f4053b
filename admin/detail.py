"""What the page of one job shows: its way beside what is usual, its files, its error, its log, its reports."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import Any

import flask

from admin import draw, files, hints, logs, words
from admin.live import settled
from jobqueue import clock, glance
from jobqueue.job import FINISHED, Event, Job
from jobqueue.samples import COARSE_S, Samples

#: The newest lines of the log that the page has.
LOG_LINES = 200
#: Points of the lines that say what the GPU did meanwhile.
POINTS = 60


def marks(job: Job) -> tuple[Any, ...]:
    """What may change beside a move: how far it is, what was told of it, which files are there, the newest frame."""
    worker = flask.current_app.extensions["worker"]
    data_dir, told = worker.settings.data_dir, glance.told(worker.queue.database, job.id)
    return (job.updated_at, told, files.frame(data_dir, job), files.mark(data_dir, job))


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
        "ends": [event for event in events if event.ends],
        "reports": worker.outbox.reports(job.id)[::-1],
        "nobody_waits": job.source == "local" or worker.settings.orchestrator_url is None,
        "left": words.left_s(job, now),
        "log": logs.of_job(data_dir / "logs", job.id, worker.mask, LOG_LINES),
        "price": worker.settings.PRICE_PER_HOUR,
        "curl": _as_curl(job, worker.settings.HTTP_PORT),
        "acts": glance.acts(database, job.id),
        "gpu": _gpu(worker, job, newest, now),
        "hints": hints,
    }


def _as_curl(job: Job, port: int) -> dict[str, Any] | None:
    """The command that hands in the same job, its links as they may be shown; whether that took anything away from them. None
    of a job from files of this machine, which /generate takes from nobody."""
    if not job.inputs or any(str(value).startswith("file:") for value in job.inputs.values()):
        return None
    fields = {name: words.masked(value) if name.endswith("_url") else value for name, value in job.inputs.items()}
    sent = {"musetalk_job_id": f"{job.id}-again", **fields, **({"params": job.params} if job.params else {})}
    text = f"curl http://127.0.0.1:{port}/generate -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(sent))}"
    return {"text": text, "masked": any(fields[name] != value for name, value in job.inputs.items())}


def _earlier(events: list[Event], round_: int) -> list[Event]:
    """How earlier rounds ended."""
    return [event for event in events if event.round < round_ and event.state in FINISHED]


def _gpu(worker: Any, job: Job, events: list[Event], now: str) -> list[dict[str, Any]]:
    """What each card did while the job was on it; nothing if that is longer ago than what is kept."""
    if not job.started_at:
        return []
    ends = [event.at for event in events if event.state in ("generated", *FINISHED)]
    since, until = (datetime.fromisoformat(at).timestamp() for at in (job.started_at, ends[0] if ends else now))
    # a day's samples are read for this: while the job runs every few seconds, then never again
    mark = (since, until if ends else until // COARSE_S)
    found: list[dict[str, Any]] = worker.seen.settled(f"gpu {job.id}", mark, lambda: _cards(worker.samples, since, until))
    return found


def _cards(samples: Samples, since: float, until: float) -> list[dict[str, Any]]:
    """The same between two wall times, s."""
    step = max(1, int((until - since) / POINTS))
    step = step if step < 10 else step // 10 * 10
    found = []
    lines, most = samples.columns(int(since) - step, step), samples.extremes(since, until)
    for card, columns in lines.items():
        loads = [load for at, load in zip(columns["at"], columns["load"], strict=True) if at <= until]
        if any(load is not None for load in loads) and card in most:
            found.append({"card": card, "line": draw.line(loads, 100), **most[card]})
    return found
