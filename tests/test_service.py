"""Who waits for what when programs stop."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobqueue import clock, migrations
from jobqueue.database import Database
from jobqueue.job import Job, NewJob
from jobqueue.queue import Queue
from service import ALIVE_S, can_finish, liveness_file
from supervision import stopping_file


@pytest.fixture
def job(tmp_path: Path) -> Job:
    migrations.prepare(tmp_path / "jobs.db")
    return Queue(Database(tmp_path / "jobs.db")).add(NewJob(id="a", source="main", engine="musetalk", inputs={}))[0]


@pytest.mark.parametrize(
    ("state", "program"), [("generating", "inference"), ("generated", "uploader"), ("uploading", "uploader")]
)
def test_a_job_can_finish_while_its_program_lives_and_all_stop(job: Job, tmp_path: Path, state: str, program: str) -> None:
    job = replace(job, state=state, not_before=0.0)
    alive = liveness_file(tmp_path, program)
    stopping_file(tmp_path).touch()
    assert not can_finish(job, tmp_path)  # the program never lived
    alive.touch()
    assert can_finish(job, tmp_path)
    stopping_file(tmp_path).unlink()
    assert not can_finish(job, tmp_path)  # one program alone begins anew
    stopping_file(tmp_path).touch()
    os.utime(alive, (0, time.time() - ALIVE_S - 1))
    assert not can_finish(job, tmp_path)


def test_a_job_that_waits_or_is_over_is_not_waited_for(job: Job, tmp_path: Path) -> None:
    stopping_file(tmp_path).touch()
    for program in ("inference", "uploader", "poller"):
        liveness_file(tmp_path, program).touch()
    for state in ("claimed", "fetching", "ready", "succeeded", "failed"):
        assert not can_finish(replace(job, state=state), tmp_path)
    assert not can_finish(replace(job, state="generated", not_before=clock.now() + 60), tmp_path)  # the store is away
