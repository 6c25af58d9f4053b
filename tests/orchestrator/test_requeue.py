"""What becomes of jobs whose workers fall silent, with a silence of a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.orchestrator.server import ON_BOTH, Server, answer, freeze, running, thaw
from tests.patience import until

SILENCE_S = 1.0


@pytest.fixture
def brief(place: Path | str) -> Iterator[Server]:
    with running(place, "--silence-s", str(SILENCE_S), "--max-requeues", "2") as started:
        yield started


def repeat_for(seconds: float, act: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        act()
        time.sleep(0.1)


def is_queued(server: Server, job_id: str) -> Callable[[], bool]:
    return lambda: server.state(job_id) == "queued"


@ON_BOTH
def test_the_job_of_a_silent_worker_goes_to_another(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("silent")
    answer(brief.report(job_id, "silent"))
    assert until(lambda: brief.claim("other"))["musetalk_job_id"] == job_id
    assert answer(brief.report(job_id, "silent"))["cancel"] is True
    answer(brief.succeed(job_id, "silent"), 409)
    answer(brief.succeed(job_id, "other"))
    assert brief.verdicts(job_id) == ["superseded", "accepted"]
    assert brief.history(job_id) == ["queued", "claimed", "running", "queued", "claimed", "succeeded"]


def test_a_job_is_requeued_without_anybody_asking_for_work(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("silent")
    until(is_queued(brief, job_id))
    job = brief.get(f"/jobs/{job_id}")
    assert (job["worker"], job["attempts"], job["requeues"]) == (None, 1, 1)
    assert "silent" in job["history"][-1]["detail"]


@ON_BOTH
def test_heartbeats_keep_a_job(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("w1")
    repeat_for(3 * SILENCE_S, lambda: brief.beat("w1"))
    assert brief.history(job_id) == ["queued", "claimed"]


def test_progress_keeps_a_job(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("w1")
    repeat_for(3 * SILENCE_S, lambda: brief.report(job_id, "w1"))
    assert brief.history(job_id) == ["queued", "claimed", "running"]


@ON_BOTH
def test_a_job_that_its_worker_does_not_know_of_is_requeued(brief: Server) -> None:
    held, lost = brief.submit(), brief.submit()
    brief.claim("w1")
    brief.claim("w1")
    until(lambda: brief.beat("w1", job_ids=[held]) and brief.state(lost) == "queued")
    assert brief.history(held) == ["queued", "claimed"]


def test_a_job_may_be_mentioned_by_its_buffer_id_or_as_the_current_one(brief: Server) -> None:
    brief.submit(buffer=True)
    by_buffer_id, current = brief.claim_buffer("w1"), brief.submit()
    brief.claim("w1")
    additions = {"job_ids": [by_buffer_id["buffer_job_id"]], "current_job_id": current}
    repeat_for(3 * SILENCE_S, lambda: brief.beat("w1", **additions))
    assert brief.state(by_buffer_id["musetalk_job_id"]) == brief.state(current) == "claimed"


def test_a_requeued_job_keeps_its_place(brief: Server) -> None:
    first, second = brief.submit(), brief.submit()
    brief.claim("silent")
    until(is_queued(brief, first))
    assert [brief.claim("other")["musetalk_job_id"] for _ in range(2)] == [first, second]


def test_a_job_that_is_lost_too_often_has_failed(brief: Server) -> None:
    job_id = brief.submit()
    for _ in range(3):
        assert until(lambda: brief.claim("silent"))["musetalk_job_id"] == job_id
    until(lambda: brief.state(job_id) == "failed")
    job = brief.get(f"/jobs/{job_id}")
    assert (job["attempts"], job["requeues"]) == (3, 2)
    assert "2 requeues" in job["error"]
    assert answer(brief.report(job_id, "silent"))["cancel"] is True
    answer(brief.succeed(job_id, "silent"), 409)


def test_a_cancelled_job_of_a_silent_worker_is_not_given_to_another(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("silent")
    answer(brief.post(f"/jobs/{job_id}/cancel"), 202)
    until(lambda: brief.state(job_id) == "cancelled")
    assert brief.claim("other") is None
    answer(brief.fail(job_id, "silent", error="cancelled"))


def test_a_key_does_not_bring_back_a_job_that_was_lost(brief: Server) -> None:
    job_id = brief.submit()
    brief.claim("w1", Idempotency_Key="a")
    assert until(lambda: brief.claim("w2"))["musetalk_job_id"] == job_id
    assert brief.claim("w1", Idempotency_Key="a") is None


@ON_BOTH
def test_a_worker_offline_is_shown_as_such(brief: Server) -> None:
    brief.beat("w1")
    until(lambda: brief.get("/workers")["workers"][0]["online"] is False)


def test_a_late_status_of_a_requeued_buffer_job_is_refused(brief: Server) -> None:
    brief.submit(buffer=True)
    job = brief.claim_buffer("silent")
    until(is_queued(brief, job["musetalk_job_id"]))
    body = {"status": "failed", "error": "too late", "output_url": None, "metrics": None}
    answer(brief.post(f"/internal/buffer/jobs/{job['buffer_job_id']}/status", body), 409)


@pytest.mark.slow
def test_time_in_which_the_orchestrator_was_stopped_is_not_silence(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--silence-s", "3") as server:
        job_id = server.submit()
        server.claim("w1")
        freeze(server)
        time.sleep(4)  # the stop itself, not a wait for anything
        thaw(server)
        assert server.claim("other") is None
        repeat_for(3, lambda: server.beat("w1"))
        assert server.history(job_id) == ["queued", "claimed"]
