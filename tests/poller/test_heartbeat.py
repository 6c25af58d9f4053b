from __future__ import annotations

import fcntl
from typing import Any

import pytest

from poller.heartbeat import Heartbeat
from poller.identity import Identity, News
from poller.look import Look
from poller.orchestrator import Orchestrator
from telemetry import gpu
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import FakeOrchestrator
from tests.poller.house import House, eventually, running

SYSTEM_INFO = {
    *("cpu_cores_physical", "cpu_cores_logical", "cpu_model", "ram_total_gb", "ram_available_gb"),
    *("disk_total_gb", "disk_free_gb", "download_speed_mbps"),
}
ADDITIONS = {
    *("gpus", "version", "engine", "mode", "paused", "draining", "healthy", "jobs_waiting", "jobs_done", "jobs_failed"),
    *("uptime_sec", "job_ids"),
}
MAIN = {"status", "current_job_id", "provider", "gpu_class", "worker_type", "system_info"}
BUFFER = {"status", "gpu_class", "capacity", "error"}


def loops(house: House, fake: FakeOrchestrator, interval_s: float = 0.1, timeout_s: float = 5, **identity: Any) -> list[Any]:
    who: Identity = house.identity(**identity)
    news = News()
    look = Look(house.queue, house.control, who, news, every_s=0.1)
    orchestrator = Orchestrator(fake.url, "key", timeout_s=timeout_s)
    return [look.loop, Heartbeat(house.queue, orchestrator, look, who, news, interval_s).loop]


def beat(house: House, fake: FakeOrchestrator, **identity: Any) -> dict[str, Any]:
    """The first heartbeat of a worker that is as the house is."""
    with running(*loops(house, fake, **identity)):
        body: dict[str, Any] = fake.wait_for("/heartbeat")[0].body
        return body


def test_a_main_heartbeat_is_as_the_contract_says(house: House, fake: FakeOrchestrator) -> None:
    body = beat(house, fake, worker_type="transient", provider="vast", gpu_class="H200")
    assert set(body) == MAIN | ADDITIONS
    assert set(body["system_info"]) == SYSTEM_INFO
    assert fake.heard[0].path == "/internal/main/workers/w-1/heartbeat"
    said = (body["status"], body["current_job_id"], body["worker_type"], body["provider"], body["gpu_class"])
    assert said == ("idle", None, "transient", "vast", "H200")


def test_a_buffer_heartbeat_is_as_the_contract_says(house: House, fake: FakeOrchestrator) -> None:
    body = beat(house, fake, mode="buffer", capacity=3, gpu_class="H200")
    assert set(body) == BUFFER | ADDITIONS
    assert fake.heard[0].path == "/internal/buffer/workers/w-1/heartbeat"
    assert {name: body[name] for name in BUFFER} == {"status": "idle", "gpu_class": "H200", "capacity": 3, "error": None}


def test_without_a_setting_the_gpu_is_named_as_its_driver_does(house: House, fake: FakeOrchestrator) -> None:
    names = [card["name"] for card in gpu.readings()] or ["cpu"]
    assert beat(house, fake)["gpu_class"] == names[0]


@pytest.mark.parametrize(
    ("state", "status", "current"),
    [
        ("claimed", "busy", "job-1"),
        ("fetching", "busy", "job-1"),
        ("ready", "busy", "job-1"),
        ("generating", "busy", "job-1"),
        ("generated", "idle", None),
        ("uploading", "idle", None),
        ("succeeded", "idle", None),
    ],
)
def test_a_worker_is_busy_while_a_job_is_before_the_gpu_or_on_it(
    house: House, fake: FakeOrchestrator, state: str, status: str, current: str | None
) -> None:
    house.job(state)
    body = beat(house, fake)
    assert (body["status"], body["current_job_id"]) == (status, current)
    assert body["job_ids"] == ([] if state == "succeeded" else ["job-1"])
    assert (body["jobs_done"], body["jobs_failed"]) == (int(state == "succeeded"), 0)


@pytest.mark.parametrize("flag", ["paused", "draining", "unfit"])
def test_a_closed_worker_is_busy_and_says_why(house: House, fake: FakeOrchestrator, flag: Any) -> None:
    house.control.put_up(flag, "the reason", "a test")
    body = beat(house, fake, mode="buffer")
    assert body["status"] == "busy"
    assert (body["paused"], body["draining"], body["healthy"]) == (flag == "paused", flag == "draining", flag != "unfit")
    assert body["error"] == ("the reason" if flag == "unfit" else None)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("mode", "bare"), [("main", MAIN), ("buffer", BUFFER)])
def test_additions_are_dropped_for_good_where_they_are_refused(
    house: House, fake: FakeOrchestrator, status: int, mode: str, bare: set[str]
) -> None:
    fake.script = lambda heard: behaviours.says({"detail": "extra fields"}, status) if "gpus" in heard.body else None
    with running(*loops(house, fake, mode=mode)):
        beats = fake.wait_for("/heartbeat", 5)
    assert [set(heard.body) == bare for heard in beats[:5]] == [False, True, True, True, True]


def test_a_beat_waits_for_no_answer_to_an_earlier_one(house: House, fake: FakeOrchestrator) -> None:
    fake.script = lambda heard: behaviours.hangs()
    with running(*loops(house, fake, interval_s=0.2, timeout_s=25)):
        assert len(fake.wait_for("/heartbeat", 3)) == 3  # none of them is answered


def test_beats_that_are_left_out_for_long_are_said_once_and_counted(
    house: House, fake: FakeOrchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fake.script = lambda heard: behaviours.drips()
    with running(*loops(house, fake, interval_s=0.02, timeout_s=0.3)):
        fake.wait_for("/heartbeat", 10)
        fake.script = lambda heard: None
        eventually(lambda: "skipped before that" in caplog.text)
    assert caplog.text.count("skipped a heartbeat") == 1


def test_beats_go_on_when_the_orchestrator_hangs_for_long(house: House, fake: FakeOrchestrator) -> None:
    fake.script = lambda heard: behaviours.drips()
    with running(*loops(house, fake, interval_s=0.1, timeout_s=0.3)):
        fake.wait_for("/heartbeat", 10)
        fake.script = lambda heard: None
        eventually(lambda: house.control.published().get("poller", {}).get("orchestrator", {}).get("ok"))


def test_heartbeats_go_on_while_the_queue_cannot_be_written(house: House, fake: FakeOrchestrator) -> None:
    with running(*loops(house, fake)):
        fake.wait_for("/heartbeat", 2)
        with house.queue.database.path.with_suffix(".lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fake.wait_for("/heartbeat", len(fake.heard) + 10)


def test_the_job_that_a_heartbeat_answer_names_is_cancelled(house: House, fake: FakeOrchestrator) -> None:
    house.job("ready")
    house.job("claimed", "job-2")
    fake.script = lambda heard: behaviours.says({"detail": "ok", "cancel_job_ids": ["job-2", 7, None, "unknown"]})
    with running(*loops(house, fake)):
        eventually(lambda: house.queue.counts() == {"ready": 1, "cancelled": 1})


def test_a_bare_cancel_is_about_the_current_job(house: House, fake: FakeOrchestrator) -> None:
    house.job("generating")
    house.job("claimed", "job-2")
    fake.script = lambda heard: behaviours.says({"cancel": True})
    with running(*loops(house, fake)):
        job = eventually(lambda: (found := house.queue.get("job-1")) and found.cancel_reason and found)
    assert job.cancel_reason == "cancelled by the orchestrator"


@pytest.mark.parametrize(
    "body", [{"cancel": "no"}, {"cancel_job_ids": "job-1"}, {"cancel_job_ids": {"job-1": 1}}, {"cancel": 1}]
)
def test_an_answer_that_is_not_the_contract_cancels_nothing(house: House, fake: FakeOrchestrator, body: Any) -> None:
    house.job("ready")
    fake.script = lambda heard: behaviours.says(body)
    with running(*loops(house, fake)):
        fake.wait_for("/heartbeat", 4)
    assert house.queue.counts() == {"ready": 1}


def test_the_page_can_read_how_the_orchestrator_answers(house: House, fake: FakeOrchestrator) -> None:
    with running(*loops(house, fake)):
        eventually(lambda: house.control.published().get("poller", {}).get("orchestrator", {}).get("ok") is True)
        fake.script = lambda heard: behaviours.error_page(502)
        said = eventually(lambda: (word := house.control.published()["poller"]["orchestrator"])["ok"] is False and word)
    assert said["error"].startswith("HTTP 502")
    assert set(said) == {"ok", "at", "latency_ms", "error"}


def test_an_id_of_a_worker_stays_one_segment(house: House, fake: FakeOrchestrator) -> None:
    beat(house, fake, worker_id="rack/7 b")
    assert fake.heard[0].path == "/internal/main/workers/rack%2F7%20b/heartbeat"
