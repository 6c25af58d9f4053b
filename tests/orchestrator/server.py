"""The orchestrator as a process of its own, and plain requests to it: nothing of our client is used here."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.patience import free_port, until

#: For a test that also holds on PostgreSQL; the others run on SQLite only, for their time.
ON_BOTH = pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-the-tests"
TALKING_HEAD = {"engine": "musetalk", "video_url": "https://files.example/face.mp4", "audio_url": "https://files.example/a.wav"}
SYSTEM_INFO = {
    "cpu_cores_physical": 4,
    "cpu_cores_logical": 8,
    "cpu_model": "a processor",
    "ram_total_gb": 32.0,
    "ram_available_gb": 20.5,
    "disk_total_gb": 100,
    "disk_free_gb": 50,
    "download_speed_mbps": None,
}
BEAT = {
    "status": "idle",
    "current_job_id": None,
    "provider": "local",
    "gpu_class": "a card",
    "worker_type": "main",
    "system_info": SYSTEM_INFO,
}
BUFFER_BEAT = {"status": "idle", "gpu_class": "a card", "capacity": 1, "error": None}


@dataclass(frozen=True)
class Server:
    """A running orchestrator, and what the people and workers of these tests say to it."""

    process: subprocess.Popen[bytes]
    url: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        sent = {"X-Internal-API-Key": KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return requests.request(method, self.url + path, json=body, headers=sent, timeout=20)

    def get(self, path: str) -> Any:
        return answer(self.ask("GET", path))

    def post(self, path: str, body: Any = None, **headers: str) -> requests.Response:
        return self.ask("POST", path, body, **headers)

    def submit(self, **changes: Any) -> str:
        """A talking-head job, or another with `engine` and its inputs; its id."""
        body = changes if "engine" in changes else {**TALKING_HEAD, **changes}
        return str(answer(self.post("/jobs", body), 201)["musetalk_job_id"])

    def claim(self, worker: str = "w1", **headers: str) -> Any:
        body = {"worker_id": worker, "worker_type": "main", "gpu_class": "a card"}
        return answer(self.post("/internal/main/jobs/claim", body, **headers))["job"]

    def claim_buffer(self, worker: str = "b1") -> Any:
        return answer(self.post("/internal/buffer/jobs/claim", {"worker_id": worker}))["job"]

    def beat(self, worker: str = "w1", **additions: Any) -> Any:
        return answer(self.post(f"/internal/main/workers/{worker}/heartbeat", {**BEAT, **additions}))

    def report(self, job_id: str, worker: str = "w1", path: str = "jobs", **changes: Any) -> requests.Response:
        return self.post(f"/internal/{path}/{job_id}/progress", {**progress(worker), **changes})

    def succeed(self, job_id: str, worker: str = "w1", **changes: Any) -> requests.Response:
        return self.report(job_id, worker, **{**SUCCEEDED, **changes})

    def fail(self, job_id: str, worker: str = "w1", error: str = "no face") -> requests.Response:
        return self.report(job_id, worker, status="failed", progress=0.5, phase="failed", error=error)

    def state(self, job_id: str) -> str:
        return str(self.get(f"/jobs/{job_id}")["state"])

    def history(self, job_id: str) -> list[str]:
        return [event["state"] for event in self.get(f"/jobs/{job_id}")["history"]]

    def verdicts(self, job_id: str) -> list[str]:
        return [report["verdict"] for report in self.get(f"/jobs/{job_id}")["reports"]]


SUCCEEDED = {
    "status": "succeeded",
    "progress": 1.0,
    "phase": "completed",
    "output_url": "https://store.example/avatar/outputs/x.mp4",
    "metrics": {"frames": 75, "fps": 25, "stage_times": {"inference": 3.5}},
}


def progress(worker: str) -> dict[str, Any]:
    return {
        "status": "running",
        "progress": 0.3,
        "phase": "inferring",
        "worker_id": worker,
        "metrics": {"frames_done": 30, "frames_total": 100},
        "error": None,
        "config_label": "default",
        "batch_size": 8,
    }


def answer(response: requests.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


@contextmanager
def running(place: Path | str, *options: str) -> Iterator[Server]:
    """An orchestrator on a free port, on a folder or on the database of an URL, ended with SIGTERM; its exit code must be 0
    unless the test has killed it."""
    server = _started(place, options)
    try:
        yield server
    finally:
        was_alive = server.process.poll() is None
        server.process.terminate()
        code = server.process.wait(20)
    assert code == 0 or not was_alive


def _started(place: Path | str, options: tuple[str, ...]) -> Server:
    for _ in range(3):  # a port that was free may be taken by the time it is used
        port = free_port()
        process = start(place, port, *options)
        server = Server(process, f"http://127.0.0.1:{port}")
        until(functools.partial(_is_up_or_dead, server))
        if process.poll() is None:
            return server
    raise AssertionError(f"the orchestrator did not start, exit code {process.returncode}")


def _is_up_or_dead(server: Server) -> bool:
    return server.process.poll() is not None or answers(server)


def start(place: Path | str, port: int, *options: str, **variables: str) -> subprocess.Popen[bytes]:
    """With the key of the tests, unless INTERNAL_API_KEY gives one."""
    key = () if "INTERNAL_API_KEY" in variables else ("--api-key", KEY)
    data = ("--data", str(place)) if isinstance(place, Path) else ()
    variables = {"DATABASE_URL": "" if isinstance(place, Path) else place, **variables}
    command = [sys.executable, "-m", "orchestrator", "--port", str(port), *data, *key, *options]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, start_new_session=True, **pipes)


def refusal(place: Path | str, port: int, *options: str, **variables: str) -> str:
    """The one line with which an orchestrator refuses to start."""
    process = start(place, port, *options, **variables)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    lines = said.decode().splitlines()
    assert len(lines) == 1, lines
    return str(lines[0])


def answers(server: Server) -> bool:
    try:
        return requests.get(server.url + "/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def freeze(server: Server) -> None:
    os.killpg(server.process.pid, signal.SIGSTOP)


def thaw(server: Server) -> None:
    os.killpg(server.process.pid, signal.SIGCONT)
