"""The answers shared by the command line and the page's JSON API. Read-only.

Keys here are API: they are added to, never changed.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import supervision
from jobqueue.job import FINISHED, Event, Job, Report
from operations import Operator
from settings import Settings


def started_file(settings: Settings) -> Path:
    """Where the running worker records what it was started with; the reader may have a different environment."""
    return settings.run_dir / "started.json"


def essentials(settings: Settings) -> dict[str, Any]:
    """Who the worker is and where it listens; nothing secret."""
    page = page_url(settings) if settings.admin_enabled else None
    return {
        "worker_id": settings.worker_id,
        "mode": settings.mode,
        "engine": settings.ENGINE,
        "http_port": settings.HTTP_PORT,
        "page": page,
        "page_secret": "ADMIN_PASSWORD" if settings.ADMIN_PASSWORD else "admin_token",
    }


def page_url(settings: Settings) -> str:
    """Where a browser on this machine finds the admin page."""
    host = "127.0.0.1" if settings.ADMIN_HOST in ("0.0.0.0", "::") else settings.ADMIN_HOST  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ADMIN_PORT}"


def status(settings: Settings, operator: Operator) -> dict[str, Any]:
    """Whether it runs, what it does, what is wrong."""
    try:
        programs = supervision.programs(settings.run_dir)
    except supervision.NotRunning:
        programs = []
    queue, control = operator.queue, operator.control
    return {
        **((programs and started(settings)) or essentials(settings)),
        "running": bool(programs),
        "flags": control.flags(),
        "programs": [asdict(program) for program in programs if program.state != "STOPPED"],
        "jobs": queue.counts(),
        "waiting_reports": operator.outbox.waiting(),
        "unfinished": [summary(job) for job in queue.unfinished()[:10]],
        "last": [summary(job) for job in queue.newest(tuple(FINISHED), limit=5)],
        "said": control.published(),
    }


def summary(job: Job) -> dict[str, Any]:
    """A job in a list."""
    return {
        "id": job.id,
        "state": job.state,
        "source": job.source,
        "engine": job.engine,
        "progress": round(job.progress, 4),
        "phase": job.phase,
        "attempt": job.attempt,
        "error": (job.error or {}).get("message"),
        "output_url": job.result.get("output_url"),
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }


def detail(job: Job, history: list[Event], reports: list[Report]) -> dict[str, Any]:
    """A job with all its data; its history and reports, oldest first."""
    return {**asdict(job), "history": [asdict(event) for event in history], "reports": [asdict(one) for one in reports]}


def started(settings: Settings) -> dict[str, Any]:
    """What the running worker was started with; empty if unknown."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(started_file(settings).read_text()))
    return {}
