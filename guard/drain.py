"""When a drain is at its end: nothing is left to do or to report, or its deadline has passed."""

from __future__ import annotations

from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FINISHED
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue


def end(database: Database) -> str | None:
    """Why the worker is to end now: the drain is complete, or its time is over. None if it is neither."""
    flag = Control(database).flag("draining")
    if flag is None:
        return None
    unfinished = sum(count for state, count in Queue(database).counts().items() if state not in FINISHED)
    reports = Outbox(database).waiting()
    if not unfinished and not reports:
        return "drained: all jobs are done and reported"
    if flag.get("deadline_boot_s", float("inf")) <= clock.now():
        return f"drained until the deadline: jobs that go on at the next start: {unfinished}, reports: {reports}"
    return None
