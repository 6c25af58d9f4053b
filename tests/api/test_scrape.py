from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from jobqueue import intake
from jobqueue.clock import utc
from jobqueue.job import FETCH, GENERATE
from tests.api.program import JOB, Api, publish_loaded, taken, work_through


def scraped(api: Api) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = api.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_what_nobody_knows_is_absent_and_not_zero(api: Api) -> None:
    api.control.publish("poller", {"gpus": [{"index": 0, "uuid": "u", "name": "card", "temperature_c": None, "power_w": 71.5}]})
    found = scraped(api)
    assert ("worker_orchestrator_up", ()) not in found
    assert not [name for name, _ in found if name in ("gpu_temperature_celsius", "gpu_utilization_ratio")]
    assert found["gpu_power_watts", ("0", "card", "u")] == 71.5


def test_the_worker_and_its_card_are_told_in_base_units(api: Api) -> None:
    publish_loaded(api.control)
    card = {"index": 0, "uuid": "u", "name": "card", "utilization_gpu": 50, "memory_used_mib": 2, "clock_sm_mhz": 1500}
    api.control.publish("poller", {"gpus": [card], "orchestrator": {"ok": True, "at": utc()}})
    found, labels = scraped(api), ("0", "card", "u")
    assert found["worker_build_info", ("musetalk", "0.1.0")] == 1
    assert found["gpu_utilization_ratio", labels] == 0.5
    assert found["gpu_memory_used_bytes", labels] == 2 * 1024 * 1024
    assert found["gpu_sm_clock_hertz", labels] == 1.5e9
    assert found["worker_orchestrator_up", ()] == 1
    assert 0 <= found["worker_heartbeat_age_seconds", ()] < 60
    assert found["worker_disk_free_bytes", ()] > 0
    assert {mode: found["worker_mode", (mode,)] for mode in ("active", "paused")} == {"active": 1, "paused": 0}


def test_jobs_are_counted_by_state_and_the_counter_does_not_go_down_when_rows_are_trimmed(api: Api) -> None:
    before = scraped(api)
    work_new_job(api, "s1")
    work_new_job(api, "s2")
    waiting = scraped(api)
    api.outbox.forget(["s1", "s2"])
    after = scraped(api)
    key = ("worker_jobs_total", ("musetalk", "succeeded"))
    assert waiting["worker_jobs_in_state", ("succeeded",)] == 2
    assert waiting[key] == after[key] == before[key] + 2
    assert after["worker_jobs_in_state", ("succeeded",)] == 0


def test_a_finished_video_that_is_not_stored_yet_is_pending(api: Api) -> None:

    api.queue.add(intake.new_job(JOB, "musetalk", "local"))
    for stage in (FETCH, GENERATE):
        api.queue.done(stage, taken(api.queue, stage), {})
    assert scraped(api)["worker_upload_pending", ()] == 1


def work_new_job(api: Api, name: str) -> None:

    api.queue.add(intake.new_job({**JOB, "musetalk_job_id": name}, "musetalk", "local"))
    work_through(api.queue)
