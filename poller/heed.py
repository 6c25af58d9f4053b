"""Requests in an orchestrator's answers to heartbeats and progress reports: cancellations."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from jobqueue.job import Job
from jobqueue.queue import Queue

log = logging.getLogger(__name__)


def heed(queue: Queue, body: dict[str, Any], meant: Job | None, unfinished: Iterable[Job]) -> None:
    """Cancel the requested jobs. `meant`: the job that a bare `"cancel": true` refers to."""
    named = body.get("cancel_job_ids")
    ids = {str(name) for name in named} if isinstance(named, list) else set()
    for job in {job.id: job for job in (*unfinished, *((meant,) if meant else ()))}.values():
        asked = job.id in ids or (job.buffer_job_id is not None and job.buffer_job_id in ids)
        asked = asked or (body.get("cancel") is True and meant is not None and job.id == meant.id)
        if asked and job.cancel_reason is None and queue.cancel(job.id, "cancelled by the orchestrator"):
            log.info("the orchestrator cancelled job %.200s", job.id)
