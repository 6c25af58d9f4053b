"""A real queue file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqueue import migrations
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FETCH, Job, NewJob
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.db"
    migrations.prepare(file)
    return file


@pytest.fixture
def queue(path: Path) -> Queue:
    return Queue(Database(path))


@pytest.fixture
def control(queue: Queue) -> Control:
    return Control(queue.database)


@pytest.fixture
def outbox(queue: Queue) -> Outbox:
    return Outbox(queue.database)


def arrival(job_id: str = "a", source: str = "main") -> NewJob:
    """A job as a claim brings it."""
    links = {"video_url": "http://127.0.0.1/v.mp4", "audio_url": "http://127.0.0.1/a.wav"}
    return NewJob(id=job_id, source=source, engine="musetalk", inputs=links, buffer_job_id="b-" + job_id)


def ready(queue: Queue, job_id: str = "a") -> None:
    """Bring a job to where inference takes it."""
    queue.add(arrival(job_id))
    job = queue.take(FETCH, "poller/1")
    assert isinstance(job, Job)
    queue.done(FETCH, job, {"stage_times": {"download": 1.0}})
