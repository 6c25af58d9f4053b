"""A drain is complete when nothing is left to do and everything is reported."""

from __future__ import annotations

from pathlib import Path

from guard.drain import end
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import NewJob
from jobqueue.migrations import prepare
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.guard.supervised import DEADLINE_S, supervised


def test_a_drain_waits_for_jobs_and_reports(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    database = Database(tmp_path / "jobs.db")
    queue, control, outbox = Queue(database), Control(database), Outbox(database)
    assert end(database) is None
    queue.add(NewJob(id="one", source="main", engine="musetalk", inputs={}))
    control.put_up("draining", "new image", "test")
    assert end(database) is None
    queue.cancel("one", "enough")
    assert end(database) is None
    for event, _ in outbox.due():
        outbox.sent(event, "accepted")
    assert end(database) == "drained: all jobs are done and reported"


def test_a_drained_worker_ends_with_0_and_says_so(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}, guard=True) as worker:
        Control(Database(folder / "data" / "jobs.db")).put_up("draining", "new image", "test")
        assert worker.first.wait(DEADLINE_S) == 0
        assert worker.lines[-1].endswith("the worker ends: drained: all jobs are done and reported")


def test_a_drain_ends_at_its_deadline_whatever_is_left(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    database = Database(tmp_path / "jobs.db")
    queue, control = Queue(database), Control(database)
    queue.add(NewJob(id="one", source="main", engine="musetalk", inputs={}))
    control.put_up("draining", "new image", "test", deadline=3600)
    assert end(database) is None
    control.take_down("draining")
    control.put_up("draining", "new image", "test", deadline=0)
    assert end(database) == "drained until the deadline: jobs that go on at the next start: 1, reports: 0"
