"""A job that does not move while the worker runs is said, with what to do; one that may wait is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import settings
from doctor import jobs
from doctor.finding import Finding, Situation
from jobqueue import clock
from jobqueue.job import FETCH, GENERATE, NewJob
from operations import Operator
from supervision import Program

LINKS = {"video_url": "https://media.example/face.mp4", "audio_url": "https://media.example/voice.wav"}


def situation(folder: Path, up_s: float = 9999.0, runs: bool = True) -> Situation:
    programs = [Program(name=name, state="RUNNING", pid=1, up_s=up_s) for name in ("poller", "inference", "uploader")]
    environ = {"DATA_DIR": str(folder / "data"), "ENGINE": "preview"}
    return Situation(settings=settings.load(environ), cards=[], programs=programs if runs else None)


def warned(now: Situation) -> list[Finding]:
    return [found for found in jobs.jobs(now) if found.level != "ok"]


@pytest.fixture
def old(operator: Operator) -> Operator:
    """A job that waits for inference, and that has not moved for twenty minutes."""
    operator.queue.add(NewJob(id="job-1", source="local", engine="musetalk", inputs=LINKS))
    taken = operator.queue.take(FETCH, "poller/1")
    assert taken
    operator.queue.done(FETCH, taken, {})
    age(operator)
    return operator


def age(operator: Operator) -> None:
    at = (datetime.now(UTC) - timedelta(minutes=20)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    operator.queue.database.write(lambda connection: connection.execute("update job set updated_at = ?", (at,)).fetchall())


def test_a_job_that_waits_for_an_idle_program_is_said(old: Operator, folder: Path) -> None:
    (found,) = warned(situation(folder))
    assert found.said == "job-1 has been ready for 20 minutes, and inference is idle"
    assert found.do == "worker logs --job job-1; worker logs inference"
    assert jobs.jobs(situation(folder))[-1].said == "1 unfinished, 1 of them stuck"


def test_a_job_may_wait_for_a_program_that_begins_or_rests_or_works_and_for_its_next_try(old: Operator, folder: Path) -> None:
    assert warned(situation(folder, up_s=5.0)) == []
    old.pause("lunch")
    assert warned(situation(folder)) == []
    old.resume()
    later = (clock.now() + 60,)
    old.queue.database.write(lambda connection: connection.execute("update job set not_before = ?", later).fetchall())
    assert warned(situation(folder)) == []
    assert jobs.jobs(situation(folder, runs=False)) == []


def test_a_job_that_is_worked_on_without_progress_is_said(old: Operator, folder: Path) -> None:
    taken = old.queue.take(GENERATE, "inference/1")
    assert taken
    old.queue.progress(taken, "inferring", 0.5)
    assert warned(situation(folder)) == []
    age(old)
    (found,) = warned(situation(folder))
    assert found.said == "job-1 is generating at 50% and has made no progress for 20 minutes"
    assert found.do.endswith("worker restart inference --now starts it over")


def test_without_a_queue_there_is_nothing_to_say(folder: Path) -> None:
    assert jobs.jobs(situation(folder)) == []
