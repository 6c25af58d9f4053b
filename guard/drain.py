"""When a drain is at its end: nothing is left to do or to report, or its deadline has passed."""

from __future__ import annotations

from jobqueue import clock
from jobqueue.job import FINISHED
from operations import Operator


def end(operator: Operator) -> str | None:
    """Why the worker is to end now: the drain is complete, or its time is over. None if it is neither."""
    flag = operator.control.flag("draining")
    if flag is None:
        return None
    unfinished = sum(count for state, count in operator.queue.counts().items() if state not in FINISHED)
    reports = operator.outbox.waiting()
    if not unfinished and not reports:
        return "drained: all jobs are done and reported"
    if flag.get("deadline_boot_s", float("inf")) <= clock.now():
        return f"drained until the deadline: jobs that go on at the next start: {unfinished}, reports: {reports}"
    return None
