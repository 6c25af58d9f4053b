"""SIGTERM to the whole worker while a job is on the GPU: it is finished, stored, reported and answered before all is over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes import clips
from tests.fakes.file_server import FileServer, whole
from tests.fakes.orchestrator import Behaviour, Heard, fake_orchestrator, says
from tests.patience import free_port
from tests.torture.worker import Worker

#: The job takes ten steps, of so many seconds each.
STEP_S = 0.3


@pytest.mark.slow
def test_what_is_on_the_gpu_when_the_worker_stops_is_stored_reported_and_answered(tmp_path: Path) -> None:
    port, answers = free_port(), list[requests.Response]()
    face, voice = FileServer([whole(clips.video())]), FileServer([whole(clips.speech())])
    with face as faces, voice as voices, fake_orchestrator() as fake:
        job = {"musetalk_job_id": "a", "video_url": faces.url(), "audio_url": voices.url(), "params": {"step_s": STEP_S}}
        given = threading.Event()

        def script(heard: Heard) -> Behaviour | None:
            if not heard.path.endswith("/claim") or given.is_set():
                return None
            given.set()
            return says({"job": job, "error": None})

        fake.script = script
        variables = {"ENGINE": "tests.fakes.engines.copies", "WORKER_MODE": "main", "ORCHESTRATOR_BASE_URL": fake.url}
        variables |= {"POLL_INTERVAL_SEC": "0.2", "HEARTBEAT_INTERVAL_SEC": "0.5", "PROVIDER": "local", "HTTP_PORT": str(port)}
        worker = Worker(tmp_path, variables)
        worker.begin()
        told = until_inferring(fake)

        def ask() -> None:
            answers.append(requests.post(f"http://127.0.0.1:{port}/generate", json=job, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        fake.wait_for("/jobs/a/progress", told + 1)
        heartbeats = len(fake.to("/heartbeat"))
        assert worker.end() == 0
        asking.join()
        said = [heard.body["status"] for heard in fake.to("/jobs/a/progress")]
    assert said[-1] == "succeeded", said
    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "success"), answers[0].text
    assert len(fake.to("/heartbeat")) > heartbeats  # they go on while the job does


def until_inferring(fake: Any) -> int:
    """Wait until the job is on the GPU; returns how many reports of it came."""
    count = 1
    while True:
        heard = fake.wait_for("/jobs/a/progress", count, 60.0)
        if heard[-1].body["phase"] == "inferring":
            return len(heard)
        count = len(heard) + 1
