from __future__ import annotations

from typing import Any

import pytest

from jobqueue import outcome
from jobqueue.job import GENERATE, UPLOAD
from poller.identity import News
from poller.orchestrator import Answer, Orchestrator
from poller.report import Reporting, settled
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import FakeOrchestrator
from tests.poller.house import FAILURE, RESULT, House, eventually, open_house, running

TERMINAL = {"status", "progress", "phase", "worker_id", "metrics", "error", "config_label", "batch_size"}
METRICS = {
    *("b2_bucket", "b2_file_name", "gpu_class", "GENERATION_TIME_SEC", "SCRIPT_WALL_TIME_SEC", "PEAK_VRAM_MIB", "PEAK_RAM_KB"),
    *("stage_times", "total_time", "frames", "fps", "engine"),
}


def reporting(house: House, fake: FakeOrchestrator | None, **identity: Any) -> Reporting:
    orchestrator = Orchestrator(fake.url, "key", timeout_s=2) if fake else None
    return Reporting(house.queue, house.outbox, orchestrator, house.identity(**identity), News(gpu_class="a card"))


def due_now(house: House) -> None:
    """Let the pause before the next try be over."""
    house.queue.database.write(lambda connection: connection.execute("update event set not_before = 0").fetchall())


def test_a_success_is_told_as_the_contract_says(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    reporting(house, fake, config_label="blue", batch_size=8).step()
    (heard,) = fake.heard
    assert heard.path == "/internal/jobs/job-1/progress"
    assert set(heard.body) == {*TERMINAL, "output_url"}
    said = {name: heard.body[name] for name in ("status", "progress", "phase", "worker_id", "error", "output_url")}
    assert said == {
        "status": "succeeded",
        "progress": 1.0,
        "phase": "completed",
        "worker_id": "w-1",
        "error": None,
        "output_url": "https://store.example/x.mp4",
    }
    assert (heard.body["config_label"], heard.body["batch_size"]) == ("blue", 8)


def test_the_metrics_of_a_finished_job_are_complete_and_null_where_unknown(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    reporting(house, fake).step()
    metrics = fake.heard[0].body["metrics"]
    assert set(metrics) == METRICS
    assert set(metrics["stage_times"]) == {"download", "validation", "preprocessing", "inference", "postprocessing", "upload"}
    assert (metrics["frames"], metrics["fps"], metrics["gpu_class"], metrics["b2_bucket"]) == (50, None, "a card", "videos")


def test_a_fastwan_job_has_its_own_path_and_metrics(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", engine="fastwan", inputs={"image_url": "https://files.example/i.png", "prompt": "a cat"})
    reporting(house, fake).step()
    assert fake.heard[0].path == "/internal/videogen/jobs/job-1/progress"
    assert {"duration_sec", "peak_vram_gb"} < set(fake.heard[0].body["metrics"])


def test_a_report_says_what_generate_answers(house: House, fake: FakeOrchestrator) -> None:
    job = house.queue.done(UPLOAD, house.job("uploading"), {**RESULT, "metrics": {"frames": 50, "linears": "fp8"}})
    reporting(house, fake).step()
    assert fake.heard[0].body["metrics"] == outcome.metrics(job, "a card")
    assert fake.heard[0].body["metrics"]["linears"] == "fp8"


@pytest.mark.parametrize(("state", "error"), [("failed", FAILURE["message"]), ("cancelled", "cancelled")])
def test_an_end_without_a_result_is_told_as_failed(house: House, fake: FakeOrchestrator, state: str, error: str) -> None:
    house.job(state)
    reporting(house, fake).step()
    body = fake.heard[0].body
    assert (body["status"], body["phase"], body["error"]) == ("failed", "failed", error)
    assert "output_url" not in body


def test_a_buffer_job_is_told_to_both_and_both_must_know(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", source="buffer", buffer_job_id="b/1")
    fake.script = lambda heard: behaviours.error_page(500) if heard.path.endswith("progress") else None
    loop = reporting(house, fake, mode="buffer")
    loop.step()
    assert [heard.path for heard in fake.heard] == ["/internal/buffer/jobs/b%2F1/status", "/internal/jobs/job-1/progress"]
    assert set(fake.heard[0].body) == {"status", "error", "output_url", "metrics"}
    assert house.outbox.waiting() == 1
    fake.script = lambda heard: None
    due_now(house)
    loop.step()
    assert house.outbox.waiting() == 0
    assert [heard.path for heard in fake.heard[2:]] == ["/internal/jobs/job-1/progress"]  # who knows is not told again


@pytest.mark.parametrize(("source", "told"), [("main", 1), ("queue", 1), ("local", 0)])
def test_who_is_told_depends_on_whence_the_job_came(house: House, fake: FakeOrchestrator, source: str, told: int) -> None:
    house.job("succeeded", source=source)
    reporting(house, fake, mode="queue").step()
    assert len(fake.heard) == told
    assert house.outbox.waiting() == 0


def test_without_an_orchestrator_ends_are_settled(house: House) -> None:
    house.job("succeeded", source="queue")
    reporting(house, None).step()
    assert house.outbox.history("job-1")[-1].answer == "nobody to tell"


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 502, 503, 302])
def test_an_end_is_kept_until_it_is_taken(house: House, fake: FakeOrchestrator, status: int) -> None:
    house.job("succeeded")
    fake.script = lambda heard: behaviours.error_page(status)
    loop = reporting(house, fake)
    for tries in (1, 2, 3):
        loop.step()
        due_now(house)
        assert (len(fake.heard), house.outbox.waiting()) == (tries, 1)
    assert house.outbox.due()[0][0].tries == 3
    fake.script = lambda heard: None
    loop.step()
    assert house.outbox.waiting() == 0


@pytest.mark.parametrize("status", [200, 204, 404, 409, 410])
def test_an_end_is_settled_when_it_is_taken_or_no_longer_wanted(house: House, fake: FakeOrchestrator, status: int) -> None:
    house.job("failed")
    fake.script = lambda heard: behaviours.says_raw(b"", status)
    loop = reporting(house, fake)
    loop.step()
    loop.step()
    assert (len(fake.heard), house.outbox.waiting()) == (1, 0)


def test_the_pause_before_the_next_try_grows_to_a_minute(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    fake.script = lambda heard: behaviours.drops()
    loop = reporting(house, fake)
    loop.step()
    loop.step()
    assert len(fake.heard) == 1  # not yet again
    for _ in range(8):
        due_now(house)
        loop.step()
    (rows,) = house.queue.database.read("select not_before from event where state = 'succeeded'")
    from jobqueue import clock

    assert 25 <= rows["not_before"] - clock.now() <= 60


def test_one_end_that_is_not_taken_does_not_hold_up_the_others(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", "poison")
    house.job("succeeded", "good")
    fake.script = lambda heard: behaviours.error_page(500) if "poison" in heard.path else None
    loop = reporting(house, fake)
    loop.step()
    loop.step()
    assert [job.id for _, job in house.outbox.due()] == []
    assert house.outbox.waiting() == 1


def test_an_absurd_id_is_told_until_it_is_refused(house: House, fake: FakeOrchestrator) -> None:
    job = house.job("failed", "x" * 10_000)
    assert settled(Answer(kind="refused", status=414), job)
    assert not settled(Answer(kind="down", status=502), job)
    assert not settled(Answer(kind="refused", status=401), house.job("failed", "job-2"))
    reporting(house, fake).step()
    assert fake.heard[0].path == f"/internal/jobs/{'x' * 10_000}/progress"


def test_an_end_survives_a_new_start(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    fake.script = lambda heard: behaviours.drops()
    reporting(house, fake).step()
    house.queue.database.close()
    fake.script = lambda heard: None
    again = open_house(house.data_dir)
    with running(reporting(again, fake).loop):
        eventually(lambda: again.outbox.waiting() == 0)


# ---- running jobs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "phase", "progress"),
    [
        ("claimed", "downloading", 0.05),
        ("fetching", "downloading", 0.05),
        ("ready", "preparing", 0.10),
        ("generating", "preparing", 0.10),
        ("generated", "uploading", 0.95),
        ("uploading", "uploading", 0.95),
    ],
)
def test_a_running_job_is_told_by_its_state(
    house: House, fake: FakeOrchestrator, state: str, phase: str, progress: float
) -> None:
    house.job(state)
    reporting(house, fake).step()
    body = fake.heard[0].body
    assert set(body) == TERMINAL
    assert (body["status"], body["phase"], body["progress"]) == ("running", phase, progress)


def test_frames_are_told_as_they_are_done_and_never_go_down(house: House, fake: FakeOrchestrator) -> None:
    job = house.job("generating")
    loop = reporting(house, fake)
    for fraction, frames in ((0.5, 50), (0.52, 52), (0.6, 60), (0.3, 30)):
        house.queue.progress(job, "inferring", fraction, frames, 100)
        loop.step()
    assert [heard.body["progress"] for heard in fake.heard] == [0.5, 0.6]  # less than 5 % is left out
    assert fake.heard[-1].body["metrics"] == {"frames_done": 60, "frames_total": 100}
    assert fake.heard[-1].body["phase"] == "inferring"


def test_a_running_report_is_never_sent_after_the_end(house: House, fake: FakeOrchestrator) -> None:
    job = house.job("generating")
    loop = reporting(house, fake)
    loop.step()
    house.queue.done(GENERATE, job, {})
    assert house.queue.cancel("job-1", "by hand")
    loop.step()
    assert loop.tell_running("job-1").text == "nothing to tell"
    assert [heard.body["status"] for heard in fake.heard] == ["running", "failed"]


def test_a_running_report_that_is_lost_is_not_kept(house: House, fake: FakeOrchestrator) -> None:
    job = house.job("generating")
    fake.script = lambda heard: behaviours.error_page(503)
    loop = reporting(house, fake)
    loop.step()
    loop.step()
    assert len(fake.heard) == 1
    house.queue.progress(job, "inferring", 0.5, 50, 100)
    loop.step()
    assert fake.heard[-1].body["progress"] == 0.5


@pytest.mark.parametrize("body", [{"cancel": True}, {"cancel_job_ids": ["job-1"]}])
def test_a_cancel_in_the_answer_is_obeyed(house: House, fake: FakeOrchestrator, body: Any) -> None:
    house.job("ready")
    fake.script = lambda heard: behaviours.says(body)
    loop = reporting(house, fake)
    loop.step()
    loop.step()
    assert [heard.body["status"] for heard in fake.heard] == ["running", "failed"]
    assert fake.heard[-1].body["error"] == "cancelled"


def test_a_local_job_is_nobodys_business(house: House, fake: FakeOrchestrator) -> None:
    house.job("ready", source="local")
    reporting(house, fake).step()
    assert fake.heard == []


def test_ends_are_flushed_when_the_program_stops(house: House, fake: FakeOrchestrator) -> None:
    with running(reporting(house, fake).loop):
        pass
    house.job("succeeded")
    with running(reporting(house, fake).loop):
        pass
    assert house.outbox.waiting() == 0
