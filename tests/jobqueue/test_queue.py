"""Every move of a job, on a real file."""

from __future__ import annotations

import dataclasses
import threading

import apsw
import pytest

from errors import EngineFailed, LostJob
from jobqueue.control import Control
from jobqueue.job import FETCH, GENERATE, UPLOAD, Job
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.jobqueue.conftest import arrival, ready


def take(queue: Queue, stage: object = GENERATE, owner: str = "inference/1") -> Job:
    job = queue.take(stage, owner)  # type: ignore[arg-type]
    assert job is not None
    return job


def to_the_end(queue: Queue, job_id: str = "a") -> Job:
    ready(queue, job_id)
    queue.done(GENERATE, take(queue), {"metrics": {"frames": 3}, "stage_times": {"inference": 2.0}})
    return queue.done(UPLOAD, take(queue, UPLOAD, "uploader/1"), {"output_url": "http://x/a.mp4"})


def test_a_job_passes_three_stages_and_keeps_what_each_found(queue: Queue, outbox: Outbox) -> None:
    job = to_the_end(queue)
    assert job.state == "succeeded"
    assert job.progress == 1.0
    assert job.result["stage_times"] == {"download": 1.0, "inference": 2.0}
    states = [event.state for event in outbox.history("a")]
    assert states == ["claimed", "fetching", "ready", "generating", "generated", "uploading", "succeeded"]


def test_a_job_sent_twice_is_added_once(queue: Queue) -> None:
    assert queue.add(arrival())[1] is True
    assert queue.add(arrival())[1] is False
    assert queue.counts() == {"claimed": 1}


def test_jobs_are_taken_in_order_of_arrival(queue: Queue) -> None:
    for name in ("x", "a", "m"):
        queue.add(arrival(name))
    assert [take(queue, FETCH, "poller/1").id for _ in range(3)] == ["x", "a", "m"]


def test_the_next_job_is_taken_in_the_commit_that_ends_the_one_before(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")
    state, following = queue.done_and_take(GENERATE, take(queue), {"metrics": {"frames": 3}})
    assert state == "generated"
    done = queue.get("a")
    assert done is not None
    assert done.result["metrics"] == {"frames": 3}
    assert following is not None
    assert (following.id, following.state, following.owner, following.attempt) == ("b", "generating", "inference/1", 1)
    assert queue.done_and_take(GENERATE, following, {})[1] is None


def test_no_next_job_is_taken_while_paused(queue: Queue, control: Control) -> None:
    ready(queue, "a")
    ready(queue, "b")
    job = take(queue)
    control.put_up("paused", "new power supply", "operator")
    assert queue.done_and_take(GENERATE, job, {})[1] is None


def test_a_lost_job_takes_no_next_one_along(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")
    lost = take(queue)
    queue.recover("inference", "inference/2", 1800)
    with pytest.raises(LostJob):
        queue.done_and_take(GENERATE, lost, {})
    assert queue.counts() == {"ready": 2}


def test_an_owner_that_lost_track_lets_go_of_all_it_holds_and_of_nothing_else(queue: Queue) -> None:
    ready(queue, "a")
    ready(queue, "b")
    take(queue, owner="inference/1")
    take(queue, owner="inference/2")
    queue.let_go("inference/1")
    mine, other = queue.get("a"), queue.get("b")
    assert mine is not None
    assert other is not None
    assert (mine.state, mine.attempt, other.state, other.owner) == ("ready", 0, "generating", "inference/2")


def test_a_succeeded_job_that_is_claimed_again_is_reported_again(queue: Queue, outbox: Outbox) -> None:
    to_the_end(queue)
    event, _ = outbox.due()[0]
    outbox.sent(event, "200")
    assert outbox.due() == []
    queue.add(dataclasses.replace(arrival(), source="buffer", buffer_job_id="b-2"))
    again, job = outbox.due()[0]
    assert (again.id, job.state, job.source, job.buffer_job_id) == (event.id, "succeeded", "buffer", "b-2")


def test_a_failed_job_that_is_claimed_again_begins_a_new_round_and_its_old_end_is_void(queue: Queue, outbox: Outbox) -> None:
    ready(queue)
    queue.fail(take(queue), EngineFailed("no").as_json("inference"))
    job, fresh = queue.add(arrival())
    assert (fresh, job.state, job.round, job.error) == (True, "claimed", 2, None)
    assert outbox.due() == []


def test_a_failed_job_that_is_sent_again_is_tried_with_what_is_sent_now(queue: Queue) -> None:
    wrong = {"message": "resolution: is wrong", "stage": "validation"}
    queue.add(dataclasses.replace(arrival(), inputs={}, error=wrong))
    links = {"video_url": "https://a.example/new.mp4", "audio_url": "https://a.example/new.wav"}
    job, fresh = queue.add(dataclasses.replace(arrival(), inputs=links, params={"face": 1}))
    assert (fresh, job.state, job.inputs, job.params) == (True, "claimed", links, {"face": 1})
    queue.cancel(job.id, "enough")
    again = queue.retry(job.id)
    assert again is not None
    assert (again.inputs, again.params) == (links, {"face": 1})


def test_a_failed_job_that_is_sent_again_and_cannot_be_run_fails_again(queue: Queue, outbox: Outbox) -> None:
    ready(queue)
    queue.fail(take(queue), EngineFailed("no").as_json("inference"))
    wrong = {"message": "resolution: is wrong", "stage": "validation"}
    job, fresh = queue.add(dataclasses.replace(arrival(), inputs={}, error=wrong))
    assert (fresh, job.state, job.round, job.error) == (False, "failed", 2, wrong)
    assert [(event.round, event.state) for event, _ in outbox.due()] == [(2, "failed")]


def test_generate_joins_a_claimed_job_without_taking_it_from_the_orchestrator(queue: Queue) -> None:
    queue.add(arrival())
    joined, _ = queue.add(arrival(source="queue"))
    assert joined.source == "main"


def test_only_the_owner_moves_a_working_row(queue: Queue) -> None:
    ready(queue)
    mine = take(queue, owner="inference/1")
    thief = dataclasses.replace(mine, owner="inference/2")
    with pytest.raises(LostJob):
        queue.done(GENERATE, thief, {})
    with pytest.raises(LostJob):
        queue.progress(thief, "inferring", 0.5)
    assert queue.done(GENERATE, mine, {}).state == "generated"


def test_one_that_lost_the_job_cannot_write_any_more(queue: Queue) -> None:
    ready(queue)
    lost = take(queue, owner="inference/1")
    assert [job.state for job in queue.recover("inference", "inference/2", 1800)] == ["ready"]
    take(queue, owner="inference/2")
    with pytest.raises(LostJob):
        queue.done(GENERATE, lost, {})
    with pytest.raises(LostJob):
        queue.put_back(GENERATE, lost, 0)


def test_recovery_touches_only_its_own_programs_dead_lives(queue: Queue) -> None:
    ready(queue)
    take(queue, owner="inference/now")
    queue.add(arrival("b"))
    take(queue, FETCH, "poller/dead.0")
    assert queue.recover("inference", "inference/now", 1800) == []
    assert [job.id for job in queue.recover("poller", "poller/new", 1800)] == ["b"]


def test_a_job_that_costs_three_lives_of_inference_fails(queue: Queue) -> None:
    ready(queue)
    for life in range(3):
        take(queue, owner=f"inference/{life}")
        queue.recover("inference", f"inference/{life + 1}", 1800)
    job = queue.get("a")
    assert job is not None
    assert job.state == "failed"
    assert job.error is not None
    assert "died 3 times" in job.error["message"]


def test_a_job_past_its_time_is_not_put_back(queue: Queue) -> None:
    ready(queue)
    take(queue)
    assert queue.recover("inference", "inference/2", timeout_s=-1)[0].state == "failed"


def test_a_waiting_job_is_cancelled_at_once(queue: Queue) -> None:
    queue.add(arrival())
    assert queue.cancel("a", "not wanted") is True
    job = queue.get("a")
    assert job is not None
    assert (job.state, job.cancel_reason) == ("cancelled", "not wanted")
    assert queue.cancel("a", "again") is False


def test_a_cancel_reaches_the_owner_through_its_progress_and_wins_over_the_next_stage(queue: Queue) -> None:
    ready(queue)
    job = take(queue)
    assert queue.cancel("a", "not wanted") is True
    assert queue.progress(job, "inferring", 0.4).cancel_reason == "not wanted"
    assert queue.done(GENERATE, job, {}).state == "cancelled"


def test_a_cancel_that_arrives_while_a_job_waits_for_its_retry_is_obeyed(queue: Queue) -> None:
    ready(queue)
    job = take(queue)
    queue.cancel("a", "not wanted")
    assert queue.put_back(GENERATE, job, 60).state == "cancelled"


def test_an_object_that_is_stored_is_not_cancelled(queue: Queue) -> None:
    ready(queue)
    queue.done(GENERATE, take(queue), {})
    job = take(queue, UPLOAD, "uploader/1")
    queue.cancel("a", "too late")
    assert queue.done(UPLOAD, job, {"output_url": "http://x"}).state == "succeeded"


def test_a_job_put_back_waits_for_its_delay(queue: Queue) -> None:
    ready(queue)
    queue.put_back(GENERATE, take(queue), 3600)
    assert queue.take(GENERATE, "inference/1") is None


@pytest.mark.parametrize("flag", ["paused", "unfit"])
def test_nothing_starts_while_paused_or_unfit_but_what_is_made_is_uploaded(queue: Queue, control: Control, flag: str) -> None:
    ready(queue, "made")
    queue.done(GENERATE, take(queue), {})
    ready(queue, "waits")
    control.put_up(flag, "dinner", "me")  # type: ignore[arg-type]
    assert queue.take(GENERATE, "inference/1") is None
    assert take(queue, UPLOAD, "uploader/1").id == "made"
    control.take_down(flag, by="me")  # type: ignore[arg-type]
    assert take(queue).id == "waits"


def test_progress_never_goes_down(queue: Queue) -> None:
    ready(queue)
    job = take(queue)
    queue.progress(job, "inferring", 0.6)
    queue.progress(job, "inferring", 0.3)
    kept = queue.get("a")
    assert kept is not None
    assert kept.progress == 0.6


def test_retry_by_hand_begins_a_new_round_only_for_what_failed_or_was_cancelled(queue: Queue) -> None:
    queue.add(arrival())
    assert queue.retry("a") is None
    assert queue.retry("unknown") is None
    queue.cancel("a", "oops")
    again = queue.retry("a")
    assert again is not None
    assert (again.state, again.round, again.cancel_reason) == ("claimed", 2, None)


@pytest.mark.parametrize(
    "sql",
    [
        "update job set state = 'succeeded'",
        "update job set state = 'generating', owner = 'x/1'",
        "update job set owner = 'x/1'",
        "update job set state = 'nonsense'",
        "update job set progress = 1.5",
        "update job set inputs = 'not json'",
        "insert into job (id, number, source, engine, inputs, params, state, stage_since, created_at, updated_at)"
        " values ('z', 9, 'main', 'musetalk', '{}', '{}', 'ready', 0, '', '')",
    ],
)
def test_the_schema_refuses_what_the_state_machine_does_not_know(queue: Queue, sql: str) -> None:
    queue.add(arrival())
    with pytest.raises((apsw.ConstraintError, apsw.SQLError)):
        queue.database.write(lambda connection: connection.execute(sql).fetchall())


def test_two_takers_never_get_the_same_job(queue: Queue) -> None:
    for number in range(60):
        queue.add(arrival(f"j{number}"))
    taken: list[str] = []

    def taker(name: str) -> None:
        while (job := queue.take(FETCH, name)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=taker, args=(f"poller/{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(f"j{n}" for n in range(60))


def test_pages_of_jobs_go_on_where_the_last_one_ended(queue: Queue) -> None:
    for number in range(5):
        queue.add(arrival(f"j{number}"))
    first = queue.newest(limit=2)
    second = queue.newest(before=first[-1].number, limit=2)
    assert [job.id for job in first + second] == ["j4", "j3", "j2", "j1"]
    assert [job.id for job in queue.newest(states=("claimed",), text="j3")] == ["j3"]


def test_claim_intents_survive_until_the_job_is_in(queue: Queue, control: Control) -> None:
    key = control.begin_claim()
    assert control.begin_claim() == key
    queue.add(arrival(), intent=key)
    assert control.begin_claim() != key


def test_others_jobs_that_wait_for_the_gpu_are_handed_back(queue: Queue) -> None:
    ready(queue, "runs")
    ready(queue, "waits")
    queue.add(arrival("new"))
    queue.add(arrival("mine", source="local"))
    assert take(queue).id == "runs"
    assert sorted(queue.hand_back(EngineFailed("the GPU failed"))) == ["new", "waits"]
    states = {job_id: job.state for job_id in ("waits", "runs", "new", "mine") if (job := queue.get(job_id))}
    assert states == {"waits": "failed", "runs": "generating", "new": "failed", "mine": "claimed"}
    job = queue.get("waits")
    assert job is not None
    assert job.error is not None
    assert (job.error["message"], job.error["retryable"], job.error["error_type"]) == (
        "the GPU failed",
        True,
        "processing_error",
    )
    assert len(Outbox(queue.database).due(limit=5)) == 2
