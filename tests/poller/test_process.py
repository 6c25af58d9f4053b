"""`python -m poller` as a process of its own, with the variables that a fleet sets today."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobqueue.database import connect
from tests.fakes import clips
from tests.fakes import orchestrator as behaviours
from tests.fakes.file_server import FileServer, whole
from tests.fakes.orchestrator import FakeOrchestrator
from tests.poller.house import LINKS, RESULT, House, eventually

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def poller(house: House, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, ended by SIGTERM if it still runs."""
    quick = {"POLL_INTERVAL_SEC": "0.2", "BUFFER_POLL_INTERVAL_SEC": "0.2", "HEARTBEAT_INTERVAL_SEC": "0.2"}
    own = {"PATH": "/usr/bin:/bin", "HOME": str(house.data_dir), "DATA_DIR": str(house.data_dir), "ALLOW_PRIVATE_URLS": "1"}
    house.model_is_loaded()
    with subprocess.Popen([sys.executable, "-m", "poller"], cwd=ROOT, env={**own, **quick, **variables}) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(30)


def main_mode(fake: FakeOrchestrator, **variables: str) -> dict[str, str]:
    return {"ORCHESTRATOR_BASE_URL": fake.url, "WORKER_TYPE": "main", "WORKER_ID": "w-1", **variables}


@pytest.mark.parametrize("gpu_variable", ["GPU_CLASS_NAME", "GPU_CLASS"])
def test_main_mode_from_the_variables_of_today(house: House, fake: FakeOrchestrator, gpu_variable: str) -> None:
    variables = {"SALAD_MACHINE_ID": "salad-7", "INTERNAL_API_KEY": "the-key", "CONFIG_LABEL": "blue", "BATCH_SIZE": "20"}
    house.job("succeeded")
    with poller(house, **main_mode(fake, WORKER_TYPE="transient", **variables, **{gpu_variable: "H200"})):
        beat = fake.wait_for("/internal/main/workers/salad-7/heartbeat")[0]
        claim = eventually(lambda: [heard for heard in fake.to("/claim") if heard.body["gpu_class"] == "H200"])[0]
        report = fake.wait_for("/internal/jobs/job-1/progress")[0]
    assert (beat.body["worker_type"], beat.body["provider"], beat.body["mode"]) == ("transient", "salad", "main")
    assert claim.body == {"worker_id": "salad-7", "worker_type": "transient", "gpu_class": "H200"}
    assert (report.body["config_label"], report.body["batch_size"], report.body["worker_id"]) == ("blue", 20, "salad-7")
    assert {heard.headers["X-Internal-API-Key"] for heard in fake.heard} == {"the-key"}


def test_buffer_mode_from_the_variables_of_today(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", source="buffer", buffer_job_id="b-1")
    variables = {"BUFFER_WORKER_ID": "b-${NUMBER}", "NUMBER": "3", "BUFFER_CAPACITY": "2", "WORKER_ID": "another"}
    urls = {"BUFFER_ORCHESTRATOR_BASE_URL": fake.url + "/", "ORCHESTRATOR_BASE_URL": "http://127.0.0.1:9"}
    with poller(house, **variables, **urls):
        beat = fake.wait_for("/internal/buffer/workers/b-3/heartbeat")[0]
        claim = fake.wait_for("/internal/buffer/jobs/claim")[0]
        fake.wait_for("/internal/buffer/jobs/b-1/status")
        fake.wait_for("/internal/jobs/job-1/progress")
    assert (beat.body["capacity"], claim.body) == (2, {"worker_id": "b-3"})


def test_queue_mode_claims_nothing_and_reports_if_there_is_an_orchestrator(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", source="queue")
    with poller(house, ORCHESTRATOR_BASE_URL=fake.url):
        fake.wait_for("/internal/jobs/job-1/progress")
        eventually(lambda: house.outbox.waiting() == 0)
    assert fake.to("/claim") == []


def test_a_worker_alone_settles_its_jobs_and_says_that_it_lives(house: House) -> None:
    house.job("succeeded", source="queue")
    with poller(house) as process:
        eventually(lambda: house.outbox.waiting() == 0)
        said = eventually(lambda: house.control.published().get("poller"))
        process.terminate()
        assert process.wait(30) == 0
    assert said["orchestrator"] == {}
    assert said["system_info"]["cpu_cores_logical"] >= 1


def test_a_claimed_job_is_fetched_from_real_servers(house: House, fake: FakeOrchestrator) -> None:
    with FileServer([whole(clips.video())]) as faces, FileServer([whole(clips.speech())]) as voices:
        job = {"musetalk_job_id": "job-1", "video_url": faces.url(), "audio_url": voices.url()}
        left = [job]
        fake.script = lambda heard: behaviours.says({"job": left.pop()}) if left and heard.path.endswith("/claim") else None
        with poller(house, **main_mode(fake)):
            eventually(lambda: house.queue.counts() == {"ready": 1}, 30)


def test_what_a_killed_poller_held_is_taken_up_again(house: House, fake: FakeOrchestrator) -> None:
    house.job("fetching", inputs=dict.fromkeys(LINKS, "http://127.0.0.1:9/x"))
    house.control.put_up("hold", "of a dead life", "poller")
    with poller(house, **main_mode(fake), DOWNLOAD_RETRIES="1"):
        eventually(lambda: (job := house.queue.get("job-1")) and job.state == "failed")  # tried again: nobody serves its files
        eventually(lambda: house.control.flags() == {})


@pytest.mark.slow
def test_heartbeats_go_out_while_nothing_can_be_written(house: House, fake: FakeOrchestrator) -> None:
    house.job("fetching", inputs=dict.fromkeys(LINKS, "http://127.0.0.1:9/x"))
    other = connect(house.queue.database.path)
    other.execute("begin immediate")
    with poller(house, **main_mode(fake), DOWNLOAD_RETRIES="1"):
        fake.wait_for("/heartbeat", 3)
        held = house.queue.get("job-1")
        assert held
        assert held.owner == "poller/test"
        other.execute("rollback")
        eventually(lambda: (job := house.queue.get("job-1")) and job.owner != "poller/test")
    other.close()


def test_an_end_is_told_after_any_number_of_kills(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    fake.script = lambda heard: behaviours.drops() if heard.path.endswith("/progress") else None
    for _ in range(2):
        with poller(house, **main_mode(fake)) as process:
            fake.wait_for("/progress", len(fake.to("/progress")) + 1)
            process.kill()
            process.wait()
    assert house.outbox.waiting() == 1
    fake.script = lambda heard: None
    house.queue.database.write(lambda connection: connection.execute("update event set not_before = 0").fetchall())
    with poller(house, **main_mode(fake)):
        eventually(lambda: house.outbox.waiting() == 0)
    assert fake.to("/progress")[-1].body["output_url"] == RESULT["output_url"]


@pytest.mark.parametrize("point", ["claim.before_post", "claim.after_answer", "claim.after_commit"])
def test_a_job_is_not_lost_when_the_poller_dies_over_its_claim(house: House, fake: FakeOrchestrator, point: str) -> None:
    """The fake gives the same job again to the same key, as an orchestrator that knows the key does."""
    given: dict[str, Any] = {}

    def script(heard: behaviours.Heard) -> behaviours.Behaviour | None:
        if not heard.path.endswith("/claim"):
            return None
        key = heard.headers["Idempotency-Key"]
        if not given:
            given[key] = {"musetalk_job_id": "job-1", **LINKS}
        return behaviours.says({"job": given.get(key)})

    fake.script = script
    with poller(house, **main_mode(fake, KILL_AT=point)) as process:
        assert process.wait(30) == -signal.SIGKILL
    with poller(house, **main_mode(fake)):
        eventually(lambda: house.queue.get("job-1"))
    assert len(given) == 1


def test_settings_that_cannot_be_used_end_it_with_one_line(house: House) -> None:
    command = [sys.executable, "-m", "poller"]
    environment = {"DATA_DIR": str(house.data_dir), "WORKER_TYPE": "main"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ORCHESTRATOR_BASE_URL: is missing")


@pytest.mark.slow
def test_after_a_pause_of_the_container_jobs_are_asked_after(house: House, fake: FakeOrchestrator) -> None:
    house.job("generating")
    fake.script = lambda heard: behaviours.says({"detail": "ok"})
    with poller(house, **main_mode(fake)) as process:
        fake.wait_for("/heartbeat", 3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(32)  # the silence itself is what is tested
        fake.script = lambda heard: behaviours.says({}, 404) if heard.path.endswith("/progress") else None
        beats = len(fake.to("/heartbeat"))
        process.send_signal(signal.SIGCONT)
        fake.wait_for("/heartbeat", beats + 2)
        job = eventually(lambda: (found := house.queue.get("job-1")) and found.cancel_reason and found)
    assert job.cancel_reason.startswith("gone: ")
