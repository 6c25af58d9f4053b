"""When a drain is complete: nothing is being done any more, and everything that ended has been reported."""

from __future__ import annotations

from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FINISHED
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue


def complete(database: Database) -> bool:
    """Whether the worker is draining and has nothing left to do or to say."""
    if Control(database).flag("draining") is None:
        return False
    unfinished = set(Queue(database).counts()) - FINISHED
    return not unfinished and Outbox(database).waiting() == 0
