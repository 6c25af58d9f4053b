"""A Hypothesis state machine over the whole surface of the queue: any sequence of calls keeps the invariants."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from errors import EngineFailed, LostJob
from jobqueue import migrations
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FINISHED, STAGES, Job, Stage
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.jobqueue.conftest import arrival

IDS = st.sampled_from(["a", "b", "c"])
STAGE = st.sampled_from(STAGES)


class QueueMachine(RuleBasedStateMachine):
    """`held`: what each live program believes it owns; `lost`: jobs of lives that died. The model knows nothing else."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        migrations.prepare(self.folder / "jobs.db")
        self.queue = Queue(Database(self.folder / "jobs.db"))
        self.control, self.outbox = Control(self.queue.database), Outbox(self.queue.database)
        self.held: dict[str, Job] = {}
        self.lost: list[tuple[Stage, Job]] = []
        self.lives = dict.fromkeys(("poller", "inference", "uploader"), 0)
        self.seen: dict[str, tuple[int, float]] = {}
        self.acknowledged = 0

    def owner(self, stage: Stage) -> str:
        return f"{stage.program}/{self.lives[stage.program]}"

    @rule(job_id=IDS, source=st.sampled_from(["main", "buffer", "queue", "local"]))
    def add(self, job_id: str, source: str) -> None:
        before = self.queue.get(job_id)
        job, fresh = self.queue.add(arrival(job_id, source))
        assert fresh == (before is None or before.state in ("failed", "cancelled"))
        assert not fresh or job.state == "claimed"

    @rule(stage=STAGE)
    def take(self, stage: Stage) -> None:
        if self.owner(stage) in self.held:
            return
        job = self.queue.take(stage, self.owner(stage))
        if job is not None:
            assert job.state == stage.working
            assert stage.name != "generate" or not self.control.flag("paused")
            self.held[self.owner(stage)] = job

    @rule(stage=STAGE, how=st.sampled_from(["done", "put_back", "fail", "cancelled", "progress"]))
    def move(self, stage: Stage, how: str) -> None:
        job = self.held.get(self.owner(stage))
        if job is None:
            return
        moves: dict[str, Any] = {
            "done": lambda: self.queue.done(stage, job, {"output_url": "http://x"}),
            "put_back": lambda: self.queue.put_back(stage, job, 0),
            "fail": lambda: self.queue.fail(job, EngineFailed("no").as_json("inference")),
            "cancelled": lambda: self.queue.cancelled(job, "asked"),
            "progress": lambda: self.queue.progress(job, "inferring", 0.5),
        }
        moves[how]()  # the living owner is never refused
        if how != "progress":
            del self.held[self.owner(stage)]

    @rule(stage=STAGE)
    def done_and_take(self, stage: Stage) -> None:
        job = self.held.pop(self.owner(stage), None)
        if job is None:
            return
        state, following = self.queue.done_and_take(stage, job, {"output_url": "http://x"})
        assert state in (stage.done, "cancelled")
        if following is not None:
            assert (following.state, following.owner) == (stage.working, self.owner(stage))
            assert stage.name != "generate" or not self.control.flag("paused")
            self.held[self.owner(stage)] = following

    @rule(stage=STAGE)
    def die(self, stage: Stage) -> None:
        job = self.held.pop(self.owner(stage), None)
        if job is not None:
            self.lost.append((stage, job))
        self.lives[stage.program] += 1
        self.queue.recover(stage.program, self.owner(stage), 1800)

    @rule(how=st.sampled_from(["done", "done_and_take", "put_back", "progress"]))
    def the_dead_write(self, how: str) -> None:
        for stage, job in self.lost:
            with contextlib.suppress(LostJob):
                if how == "done":
                    self.queue.done(stage, job, {"output_url": "http://stale"})
                elif how == "done_and_take":
                    self.queue.done_and_take(stage, job, {"output_url": "http://stale"})
                elif how == "put_back":
                    self.queue.put_back(stage, job, 0)
                else:
                    self.queue.progress(job, "inferring", 0.9)
                raise AssertionError("a dead owner could write")

    @rule(job_id=IDS)
    def cancel(self, job_id: str) -> None:
        before = self.queue.get(job_id)
        assert self.queue.cancel(job_id, "asked") == (before is not None and not before.finished)

    @rule(job_id=IDS)
    def retry(self, job_id: str) -> None:
        self.queue.retry(job_id)

    @rule()
    def pause(self) -> None:
        self.control.put_up("paused", "test", "me")

    @rule()
    def resume(self) -> None:
        self.control.take_down("paused")

    @rule(arrives=st.booleans())
    def report(self, arrives: bool) -> None:
        for event, job in self.outbox.due():
            assert job.state == event.state
            assert job.round == event.round
            if arrives:
                self.outbox.sent(event, "200")
                self.acknowledged += 1
            else:
                self.outbox.again(event, "503", 0)

    @invariant()
    def every_row_is_possible(self) -> None:
        if not hasattr(self, "queue"):
            return
        for job in self.queue.newest():
            assert (job.owner is not None) == (job.state in [stage.working for stage in STAGES])
            before = self.seen.get(job.id, (0, 0.0))
            assert job.round >= before[0]
            assert job.round > before[0] or job.progress >= before[1]
            self.seen[job.id] = (job.round, job.progress)
            events = self.outbox.history(job.id)
            assert events[-1].state == job.state
            ends = [event for event in events if event.state in FINISHED]
            assert len({event.round for event in ends}) == len(ends), "two ends of one round"
            waiting = [event for event in ends if event.sent_at is None]
            assert len(waiting) <= 1
            assert all(event.round == job.round for event in waiting)

    @invariant()
    def the_living_own_what_they_hold(self) -> None:
        for owner, job in getattr(self, "held", {}).items():
            row = self.queue.get(job.id)
            assert row is not None
            assert (row.owner, row.state) == (owner, job.state)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            check = self.queue.database.read("pragma integrity_check")
            assert [row["integrity_check"] for row in check] == ["ok"]
            self.queue.database.close()
            shutil.rmtree(self.folder, ignore_errors=True)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
