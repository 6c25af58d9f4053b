"""The real program `api` in a process of its own, and the test as the other programs around the same queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import requests

from jobqueue import migrations
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import STAGES, Job, Stage
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.patience import PATIENCE_S, free_port, until

ROOT = Path(__file__).parents[2]
JOB = {"musetalk_job_id": "j1", "video_url": "https://a.example/v.mp4", "audio_url": "https://a.example/a.wav"}
CLIP = {"musetalk_job_id": "j1", "image_url": "https://a.example/i.png", "prompt": "a fox"}


@dataclass(frozen=True)
class Api:
    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path
    queue: Queue
    control: Control
    outbox: Outbox

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.url(path), timeout=PATIENCE_S, **more)

    def post(self, body: Any, **more: Any) -> requests.Response:
        return requests.post(self.url("/generate"), json=body, timeout=PATIENCE_S, **more)


@contextmanager
def running(data_dir: Path, **variables: str) -> Iterator[Api]:
    """The program, answering; killed at the end."""
    migrations.prepare(data_dir / "jobs.db")
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "DATA_DIR": str(data_dir), "HTTP_PORT": str(port), **variables}
    process = subprocess.Popen([sys.executable, "-m", "api"], cwd=ROOT, env=environment)
    database = Database(data_dir / "jobs.db")
    api = Api(process, port, data_dir, Queue(database), Control(database), Outbox(database))
    try:
        until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, "the api ended by itself"
        yield api
    finally:
        process.kill()
        process.wait()
        database.close()


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/hc", timeout=PATIENCE_S).ok
    except requests.ConnectionError:
        return False


def work_through(queue: Queue, results: Mapping[str, dict[str, Any]] | None = None) -> Job:
    """Do the next job as poller, inference and uploader would. results: what each stage adds."""
    given = {"upload": {"output_url": "https://store.example/j.mp4"}} | dict(results or {})
    job = None
    for stage in STAGES:
        job = queue.done(stage, taken(queue, stage), given.get(stage.name, {}))
    assert job is not None
    return job


def taken(queue: Queue, stage: Stage) -> Job:
    """The next job of a stage, once there is one."""
    return cast(Job, until(lambda: queue.take(stage, f"{stage.program}/test")))


def publish_loaded(control: Control, loaded: bool = True) -> None:
    """Say what a running inference says."""
    control.publish("inference", {"engine": "preview", "model_loaded": loaded, "device": "cpu", "reason": None})
