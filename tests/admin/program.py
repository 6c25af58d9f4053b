"""The real program `admin` in a process of its own, and a browser's manners towards it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from jobqueue import migrations, spool
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import STAGES, Job, NewJob
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.fakes import clips
from tests.patience import PATIENCE_S, free_port, until

ROOT = Path(__file__).parents[2]
PASSWORD = "a long password"


@dataclass(frozen=True, kw_only=True)
class Admin:
    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    queue: Queue
    control: Control
    outbox: Outbox

    def log_in(self, secret: str = PASSWORD) -> requests.Session:
        """A browser that is logged in: it sends Origin, as browsers do with every POST."""
        browser = requests.Session()
        browser.headers["Origin"] = self.url
        answer = browser.post(f"{self.url}/login", data={"password": secret}, allow_redirects=False, timeout=PATIENCE_S)
        assert answer.status_code == 303, answer.text
        return browser

    def form_token(self, browser: requests.Session) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', browser.get(f"{self.url}/", timeout=PATIENCE_S).text)
        assert found
        return found[1]

    def post(self, browser: requests.Session, path: str, headers: dict[str, Any] | None = None, **fields: str) -> int:
        """Send a form of ours, with what a browser adds. Returns the status."""
        data = {"csrf": self.form_token(browser), **fields}
        answer = browser.post(f"{self.url}{path}", data=data, headers=headers, allow_redirects=False, timeout=PATIENCE_S)
        return answer.status_code

    def dump(self) -> list[Any]:
        """Every row of the queue's file."""
        tables = ("job", "event", "report", "control", "status", "claim_intent", "audit", "session")
        return [self.queue.database.read(f"select * from {table}") for table in tables]


@contextmanager
def running(data_dir: Path, **variables: str) -> Iterator[Admin]:
    """The program, answering; killed at the end. Its log goes to data_dir/said."""
    migrations.prepare(data_dir / "jobs.db")
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environ = {**kept, "DATA_DIR": str(data_dir), "ADMIN_PORT": str(port), "ADMIN_PASSWORD": PASSWORD, **variables}
    with (data_dir / "said").open("a") as said:
        process = subprocess.Popen([sys.executable, "-m", "admin"], cwd=ROOT, env=environ, stdout=said, stderr=said, text=True)
    database, url = Database(data_dir / "jobs.db"), f"http://127.0.0.1:{port}"
    queue, control, outbox = Queue(database), Control(database), Outbox(database)
    try:
        until(lambda: process.poll() is not None or answers(url))
        assert process.poll() is None, (data_dir / "said").read_text()
        yield Admin(process=process, url=url, data_dir=data_dir, queue=queue, control=control, outbox=outbox)
    finally:
        process.kill()
        process.wait()
        database.close()


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=PATIENCE_S).ok
    except requests.ConnectionError:
        return False


def arrival(job_id: str, **inputs: str) -> NewJob:
    links = {"video_url": "https://media.example/face.mp4", "audio_url": "https://media.example/voice.wav"}
    return NewJob(id=job_id, source="local", engine="musetalk", inputs=links | inputs)


def add_done(queue: Queue, data_dir: Path, job_id: str, size: int = 64, frames: int = 12) -> Job:
    """A job that has passed all stages, with its files on disk."""
    queue.add(arrival(job_id))
    folder = spool.folder(data_dir, job_id)
    folder.mkdir(parents=True)
    spool.input_file(data_dir, job_id, "video_url").write_bytes(clips.video(frames=frames, size=size))
    spool.input_file(data_dir, job_id, "audio_url").write_bytes(clips.speech())
    spool.output_file(data_dir, job_id).write_bytes(clips.video(1, frames=frames, size=size))
    results: dict[str, dict[str, Any]] = {
        "fetch": {"stage_times": {"download": 3.1, "validation": 0.2}},
        "generate": {"stage_times": {"inference": 21.4, "postprocessing": 1.9}, "metrics": {"frames": 500, "fps": 23.4}},
        "upload": {"stage_times": {"upload": 2.2}, "output_url": f"https://store.example/{job_id}.mp4"},
    }
    for stage in STAGES:
        taken = queue.take(stage, f"{stage.program}/test")
        assert taken is not None
        assert taken.id == job_id
        queue.done(stage, taken, results[stage.name])
    return known(queue, job_id)


def add_failed(queue: Queue, job_id: str, error: dict[str, Any]) -> Job:
    """A job that failed while it was generated."""
    queue.add(arrival(job_id))
    for stage in STAGES[:2]:
        taken = queue.take(stage, f"{stage.program}/test")
        assert taken is not None
        if stage.name == "fetch":
            queue.done(stage, taken, {})
        else:
            queue.fail(taken, error)
    return known(queue, job_id)


def known(queue: Queue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job
    return job
