"""When a drain is complete: nothing is left to do or report, or its deadline has passed."""

from __future__ import annotations

from jobqueue import clock
from jobqueue.job import FINISHED
from operations import Operator


def end(operator: Operator) -> str | None:
    """Why the worker must exit now: the drain is complete, or its deadline has passed. None if neither."""
    flag = operator.control.flag("draining")
    if flag is None:
        return None
    unfinished = sum(count for state, count in operator.queue.counts().items() if state not in FINISHED)
    reports = operator.outbox.waiting()
    if not unfinished and not reports:
        return "drained: all jobs are done and reported"
    if flag.get("deadline_boot_s", float("inf")) <= clock.now():
        return f"drain deadline reached; left for the next start: {unfinished} jobs, {reports} reports"
    return None
