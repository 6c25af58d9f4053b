"""The loop that the three stages share, on a real file, with work that succeeds, fails and is stopped."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import errors
from errors import Cancelled, EngineFailed, InvalidInput, LostJob, Unavailable
from jobqueue import clock
from jobqueue.job import GENERATE, Job
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.worker import MAX_WITHOUT_HANDLES, NoHandles, Progress, work
from tests.jobqueue.conftest import ready
from tests.patience import PATIENCE_S, until


@contextmanager
def working(
    queue: Queue, do: Callable[[Job, Progress], dict[str, Any]], timeout_s: float = 60, grace_s: float = 0
) -> Iterator[threading.Event]:
    """The loop in a thread, stopped and joined at the end."""
    stop = threading.Event()

    def loop() -> None:
        work(GENERATE, do, queue, "inference/1", stop, timeout_s=timeout_s, grace_s=grace_s)
        queue.database.close()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        queue.bell.ring()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def state(queue: Queue, job_id: str) -> str:
    job = queue.get(job_id)
    assert job is not None
    return job.state


def test_jobs_that_wait_are_done_one_after_another(queue: Queue) -> None:
    for name in "abc":
        ready(queue, name)
    seen: list[str] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        seen.append(job.id)
        return {"metrics": {"frames": 1}}

    with working(queue, do):
        until(lambda: queue.counts() == {"generated": 3})
    assert seen == ["a", "b", "c"]


def test_a_job_taken_ahead_goes_back_unharmed_when_the_program_stops(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")
    stops: list[threading.Event] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        until(lambda: stops)
        stops[0].set()  # while the first job runs
        return {}

    with working(queue, do) as stop:
        stops.append(stop)
        until(lambda: state(queue, "a") == "generated")
    job = queue.get("b")
    assert job is not None
    assert (job.state, job.owner, job.attempt) == ("ready", None, 0)


@pytest.mark.parametrize("error", [Unavailable("the disk is full"), EngineFailed("lost the thread")])
def test_what_may_pass_is_tried_again_later(queue: Queue, error: Exception) -> None:
    ready(queue)
    tries: list[int] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        tries.append(job.attempt)
        if len(tries) == 1:
            raise error
        return {}

    with working(queue, do):
        until(lambda: state(queue, "a") == "generated")
    assert tries == [1, 2]


def test_bad_input_is_never_tried_again(queue: Queue) -> None:
    ready(queue)
    tries: list[int] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        tries.append(job.attempt)
        raise InvalidInput("video: 0 frames", stage="validation")

    with working(queue, do):
        until(lambda: state(queue, "a") == "failed")
    job = queue.get("a")
    assert job is not None
    assert job.error is not None
    assert (job.error["error_type"], job.error["retryable"], tries) == ("media_error", False, [1])


def test_an_unforeseen_error_costs_the_job_and_not_the_program(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        if job.id == "a":
            raise ZeroDivisionError("no frame")
        return {}

    with working(queue, do, timeout_s=0.1):  # no time for another try
        until(lambda: queue.counts() == {"failed": 1, "generated": 1})
    job = queue.get("a")
    assert job is not None
    assert job.error is not None
    assert job.error["error_type"] == "unknown_error"
    assert "ZeroDivisionError: no frame" in job.error["message"]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_a_result_that_cannot_be_kept_costs_the_job_and_is_not_taken_for_a_full_disk(queue: Queue, value: object) -> None:
    ready(queue)
    with working(queue, lambda job, progress: {"metrics": {"fps": value}}, timeout_s=0.1):
        until(lambda: state(queue, "a") == "failed")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_what_an_error_says_is_kept_whatever_it_is(queue: Queue, value: object) -> None:
    ready(queue)

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        raise EngineFailed("no", found=value)

    with working(queue, do, timeout_s=0.1):
        until(lambda: state(queue, "a") == "failed")
    job = queue.get("a")
    assert job is not None
    assert job.error is not None
    assert job.error["details"] == {"found": str(value)}


def test_a_cancel_reaches_the_work_through_its_progress(queue: Queue) -> None:
    ready(queue)
    heard: list[str] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                progress("inferring", 0.5, 1, 2)
            except Cancelled as reason:
                heard.append(str(reason))
                raise
            time.sleep(0.01)
        return {}

    with working(queue, do):
        until(lambda: state(queue, "a") == "generating")
        queue.cancel("a", "not needed")
        until(lambda: state(queue, "a") == "cancelled")
    assert heard == ["not needed"]


def test_work_on_a_job_that_is_no_longer_ours_is_dropped(queue: Queue) -> None:
    ready(queue, "a")

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        if job.attempt == 1 and not job.crashes:
            queue.recover("inference", "inference/2", 1800)  # another life took it away
            with pytest.raises(LostJob):
                progress("inferring", 0.5)
        return {"by": job.attempt}

    with working(queue, do):
        until(lambda: state(queue, "a") == "generated")
    job = queue.get("a")
    assert job is not None
    assert (job.crashes, job.result["by"]) == (0, 2)


def test_a_long_job_goes_back_when_the_program_stops(queue: Queue) -> None:
    ready(queue)

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            progress("inferring", 0.5)
            time.sleep(0.01)
        return {}

    with working(queue, do) as stop:
        until(lambda: state(queue, "a") == "generating")
        stop.set()
        until(lambda: state(queue, "a") == "ready")
    job = queue.get("a")
    assert job is not None
    assert job.attempt == 0


def test_a_program_that_stops_takes_nothing_more(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")
    stopped = threading.Event()

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        assert stopped.wait(PATIENCE_S)
        return {}

    with working(queue, do) as stop:
        until(lambda: state(queue, "a") == "generating")
        stop.set()
        stopped.set()
        until(lambda: state(queue, "a") == "generated")
    assert [event.state for event in Outbox(queue.database).history("b")] == ["claimed", "fetching", "ready"]


def test_what_a_job_keeps_of_an_error_is_of_a_known_length() -> None:
    kept = EngineFailed("m" * 10_000_000, stack_trace="s" * 10_000_000 + "the end").as_json("inference")
    assert (len(kept["message"]), len(kept["stack_trace"])) == (errors.MAX_TEXT, errors.MAX_TEXT)
    assert kept["stack_trace"].endswith("the end")


def test_a_machine_that_is_short_of_something_costs_no_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue.worker.MAX_WITHOUT_HANDLES", 100)
    monkeypatch.setattr("jobqueue.pause.before_try", lambda tries: 0.01)
    shortages: list[Exception] = [
        OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS)
    ]
    shortages.append(RuntimeError("can't start new thread"))
    assert len(shortages) > GENERATE.max_attempts
    ready(queue)

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        if shortages:
            raise shortages.pop()
        return {}

    with working(queue, do):
        until(lambda: state(queue, "a") in ("generated", "failed"))
    assert state(queue, "a") == "generated"


def has_waited(queue: Queue, job_id: str, seconds: float) -> None:
    """As if it had entered its stage, or been put back, that long ago."""
    back = "update job set stage_since = stage_since - :s, not_before = max(0, not_before - :s) where id = :id"
    queue.database.write(lambda at: at.execute(back, {"s": seconds, "id": job_id}).fetchall())


def test_waiting_does_not_count_against_a_jobs_time(queue: Queue) -> None:
    ready(queue)
    spent: list[float] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        spent.append(clock.now() - job.stage_since)
        if len(spent) == 1:
            raise Unavailable("not yet")
        return {}

    has_waited(queue, "a", 4000)  # behind others, or while the worker was paused
    with working(queue, do, timeout_s=60):
        until(lambda: spent)
    until(lambda: state(queue, "a") == "ready")
    has_waited(queue, "a", 4000)
    with working(queue, do, timeout_s=60):
        until(lambda: state(queue, "a") == "generated")
    assert len(spent) == 2
    assert max(spent) < 60


def test_the_time_between_tries_counts(queue: Queue) -> None:
    ready(queue)
    job = queue.take(GENERATE, "inference/1")
    assert job
    queue.put_back(GENERATE, job, 30.0)
    has_waited(queue, "a", 40)
    again = queue.take(GENERATE, "inference/1")
    assert again
    assert 30 <= clock.now() - again.stage_since < 40


def test_a_program_that_gets_no_file_handle_back_ends_and_its_job_waits(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue.pause.before_try", lambda tries: 0.01)
    ready(queue)
    tries: list[int] = []

    def do(job: Job, progress: Progress) -> dict[str, Any]:
        tries.append(job.attempt)
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError:
            raise Unavailable("the input could not be kept") from None  # as the poller says it

    with pytest.raises(NoHandles):
        work(GENERATE, do, queue, "inference/1", threading.Event(), timeout_s=60)
    job = queue.get("a")
    assert job is not None
    assert (job.state, len(tries)) == ("ready", MAX_WITHOUT_HANDLES)
