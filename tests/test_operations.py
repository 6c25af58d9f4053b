"""What an operator can do, whoever asks: what it changes, what it refuses, and the audit row that it leaves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import operations
import supervision
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FETCH, NewJob
from jobqueue.migrations import prepare
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from tests.guard.supervised import Supervised, supervised, wait_for


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    prepare(tmp_path / "jobs.db")
    database = Database(tmp_path / "jobs.db")
    return Operator(actor="test", queue=Queue(database), control=Control(database), outbox=Outbox(database))


@pytest.fixture(scope="module")
def supervisord() -> Iterator[Supervised]:
    with tempfile.TemporaryDirectory(prefix="w-") as path, supervised(Path(path), {"inference": "steady.py"}) as started:
        yield started


def add(operator: Operator, *job_ids: str) -> None:
    for job_id in job_ids:
        operator.queue.add(NewJob(id=job_id, source="main", engine="musetalk", inputs={}, buffer_job_id=f"b-{job_id}"))


def noted(operator: Operator) -> tuple[Any, ...]:
    note = operator.control.notes(1)[0]
    return note["actor"], note["action"], note["target"], note["reason"], note["result"].split(",")[0]


def make_over(operator: Operator) -> None:
    sql = "update control set value = json_set(value, '$.until_boot_s', ?) where name = 'paused'"
    operator.control.database.write(lambda connection: connection.execute(sql, (clock.now() - 1,)).fetchall())


def test_a_pause_ends_when_its_time_is_over_and_that_is_noted(operator: Operator, tmp_path: Path) -> None:
    assert operator.pause("lunch", for_s=3600)
    assert noted(operator) == ("test", "pause", None, "lunch", "done")
    assert "until 2" in operator.control.notes(1)[0]["result"]
    assert not operator.pause("dinner")
    operator.settle(tmp_path)
    assert operator.control.flag("paused")
    make_over(operator)
    operator.settle(tmp_path)
    assert noted(operator) == ("test", "resume", None, "the pause expired: lunch", "done")
    assert operator.control.database.read("select 1 from control where name = 'paused'") == []


@pytest.mark.parametrize("seconds", [0, -5, 31 * 86400, float("nan"), float("inf")])
def test_a_time_that_makes_no_sense_is_refused(operator: Operator, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be a time from 1 s to 30 days"):
        operator.pause("lunch", for_s=seconds)
    with pytest.raises(ValueError, match="must be a time from 1 s to 30 days"):
        operator.drain("new image", deadline_s=seconds)
    assert operator.control.flags() == {}


def test_many_jobs_are_cancelled_and_retried_with_a_row_for_each(operator: Operator) -> None:
    add(operator, "one", "two", "three")
    assert operator.cancel_all(["one", "nobody", "three"], "mistake") == ["one", "three"]
    assert {note["target"]: note["result"] for note in operator.control.notes()} == {
        "one": "done",
        "nobody": "nothing to do",
        "three": "done",
    }
    assert operator.retry_all(["one", "two", "three"]) == ["one", "three"]
    jobs = {job.id: job for job in operator.queue.unfinished()}
    assert {name: (job.state, job.round, job.buffer_job_id) for name, job in jobs.items()} == {
        "one": ("claimed", 2, "b-one"),
        "two": ("claimed", 1, "b-two"),
        "three": ("claimed", 2, "b-three"),
    }


def test_more_than_500_at_once_are_refused(operator: Operator) -> None:
    too_many = [f"job-{number}" for number in range(501)]
    with pytest.raises(ValueError, match="501 jobs; at most 500 at once"):
        operator.cancel_all(too_many, "all")
    with pytest.raises(ValueError, match="501 jobs; at most 500 at once"):
        operator.retry_all(too_many)
    assert operator.control.notes() == []
    assert len(operator.cancel_all(too_many[:500], "all")) == 0


@pytest.mark.parametrize("engine", ["musetalk", "fastwan"])
def test_the_sample_job_is_a_job_like_any_other(operator: Operator, tmp_path: Path, engine: str) -> None:
    job = operator.sample(engine, tmp_path)
    assert job.state == "claimed"
    assert job.source == "local"
    for field in operations.SAMPLE[engine]:
        assert Path(job.inputs[field].removeprefix("file://")).parent == operations.incoming(tmp_path)
    assert noted(operator) == ("test", "sample job", job.id, None, "done")


def test_fields_of_the_sample_job_can_be_replaced(operator: Operator, tmp_path: Path) -> None:
    job = operator.sample("fastwan", tmp_path, musetalk_job_id="mine", prompt="She waves.")
    assert (job.id, job.inputs["prompt"]) == ("mine", "She waves.")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("resolution", "big", "resolution: must look like"),
        ("musetalk_job_id", "one", "belongs to a job that someone else is waiting for"),
        ("audio_url", ".", "no such file"),
    ],
)
def test_a_job_that_is_refused_leaves_no_copy_of_its_files(
    operator: Operator, tmp_path: Path, field: str, value: str, says: str
) -> None:
    add(operator, "one")
    face = tmp_path / "face.mp4"
    face.write_bytes(b"video")
    with pytest.raises(ValueError, match=says):
        operator.submit({"video_url": str(face), "audio_url": str(face), field: value}, "musetalk", tmp_path)
    assert not list(operations.incoming(tmp_path).glob("*"))


def test_a_file_that_cannot_be_copied_takes_the_copies_of_the_others_with_it(operator: Operator, tmp_path: Path) -> None:
    face = tmp_path / "face.mp4"
    face.write_bytes(b"video")
    with pytest.raises(OSError, match="Input/output error"):
        operator.submit({"video_url": str(face), "audio_url": "/proc/self/mem"}, "musetalk", tmp_path)
    assert not list(operations.incoming(tmp_path).glob("*"))


# ---- restarts ---------------------------------------------------------------------------------------------------------------


def test_a_program_is_restarted_now(operator: Operator, supervisord: Supervised) -> None:
    pid = supervisord.running_pid("inference")
    assert operator.restart("inference", supervisord.folder / "run", "a leak")
    assert supervisord.pid("inference", other_than=pid) != pid
    assert noted(operator) == ("test", "restart", "inference", "a leak", "done")


def test_a_program_that_works_is_restarted_after_its_job(operator: Operator, supervisord: Supervised) -> None:
    run, pid = supervisord.folder / "run", supervisord.running_pid("inference")
    add(operator, "one")
    job = operator.queue.take(FETCH, "inference/1")
    assert job
    assert operator.restart("inference", run, "a leak", after_job=True)
    assert not operator.restart("inference", run, "a leak", after_job=True)
    operator.settle(run)
    assert supervisord.running_pid("inference") == pid
    operator.queue.done(FETCH, job, {})
    operator.settle(run)
    assert supervisord.pid("inference", other_than=pid) != pid
    assert operator.control.restarts() == {}
    assert noted(operator)[:4] == ("test", "restart", "inference", "a leak")


def test_a_restart_that_came_by_itself_is_not_done_again(operator: Operator, supervisord: Supervised) -> None:
    run, pid = supervisord.folder / "run", supervisord.running_pid("inference")
    operator.control.ask_restart("inference", "a leak", "test", pid + 1)
    operator.settle(run)
    assert supervisord.running_pid("inference") == pid
    assert operator.control.restarts() == {}


def test_an_idle_program_is_restarted_at_once_also_after_its_job(operator: Operator, supervisord: Supervised) -> None:
    pid = supervisord.running_pid("inference")
    assert operator.restart("inference", supervisord.folder / "run", "a leak", after_job=True)
    wait_for(lambda: (found := supervisord.program("inference")) and found.pid != pid, "another process")


@pytest.mark.parametrize("name", ["guard", "supervisord", "", "worker:inference", "../x", "shutdown"])
def test_only_known_programs_are_restarted(operator: Operator, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be one of poller, inference"):
        operator.restart(name, tmp_path, "mischief")


def test_without_supervisord_a_restart_says_so_and_is_noted(operator: Operator, tmp_path: Path) -> None:
    with pytest.raises(supervision.NotRunning):
        operator.restart("inference", tmp_path, "a leak")
    assert noted(operator)[4].startswith("failed: ")


def test_a_program_that_supervisord_does_not_know_is_named(operator: Operator, supervisord: Supervised) -> None:
    with pytest.raises(supervision.NotRunning, match="no program called uploader"):
        operator.restart("uploader", supervisord.folder / "run", "a leak")


def test_a_job_of_ones_own_may_not_take_the_place_of_anothers(operator: Operator, tmp_path: Path) -> None:
    links = {"video_url": "https://a.example/v.mp4", "audio_url": "https://a.example/a.wav"}
    add(operator, "theirs")
    with pytest.raises(ValueError, match="musetalk_job_id: theirs belongs to a job that someone else"):
        operator.submit({"musetalk_job_id": "theirs", **links}, "musetalk", tmp_path)
    theirs = operator.queue.get("theirs")
    assert theirs is not None
    assert theirs.source == "main"
    assert [operator.submit({"musetalk_job_id": "mine", **links}, "musetalk", tmp_path).round for _ in range(2)] == [1, 1]
