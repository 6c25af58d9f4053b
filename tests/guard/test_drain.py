"""A drain is complete when nothing is left to do and everything is reported."""

from __future__ import annotations

from pathlib import Path

from guard.__main__ import settle
from guard.drain import end
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import NewJob
from jobqueue.migrations import prepare
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from tests.guard.supervised import DEADLINE_S, supervised


def opened(folder: Path) -> Operator:
    prepare(folder / "jobs.db")
    database = Database(folder / "jobs.db")
    return Operator(actor="test", queue=Queue(database), control=Control(database), outbox=Outbox(database))


def test_a_drain_waits_for_jobs_and_reports(tmp_path: Path) -> None:
    worker = opened(tmp_path)
    assert end(worker) is None
    worker.queue.add(NewJob(id="one", source="main", engine="musetalk", inputs={}))
    worker.control.put_up("draining", "new image", "test")
    assert end(worker) is None
    worker.queue.cancel("one", "enough")
    assert end(worker) is None
    for event, _ in worker.outbox.due():
        worker.outbox.sent(event, "accepted")
    assert end(worker) == "drained: all jobs are done and reported"


def test_a_drained_worker_ends_with_0_and_says_so(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}, guard=True) as worker:
        Control(Database(folder / "data" / "jobs.db")).put_up("draining", "new image", "test")
        assert worker.first.wait(DEADLINE_S) == 0
        assert worker.lines[-1].endswith("the worker exits: drained: all jobs are done and reported")


def test_a_drain_ends_at_its_deadline_whatever_is_left(tmp_path: Path) -> None:
    worker = opened(tmp_path)
    worker.queue.add(NewJob(id="one", source="main", engine="musetalk", inputs={}))
    worker.control.put_up("draining", "new image", "test", deadline=3600)
    assert end(worker) is None
    worker.control.take_down("draining")
    worker.control.put_up("draining", "new image", "test", deadline=0)
    assert end(worker) == "drain deadline reached; left for the next start: 1 jobs, 0 reports"


def test_a_queue_that_cannot_be_read_does_not_end_the_guard(tmp_path: Path) -> None:
    assert settle(Database(tmp_path / "jobs.db"), tmp_path) is None
