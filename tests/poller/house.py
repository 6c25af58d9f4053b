"""What the poller's tests stand on: a queue on disk, an identity, jobs in any state, and waiting for a condition."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqueue import migrations
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FETCH, GENERATE, UPLOAD, Job, NewJob
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from poller.identity import Identity

LINKS = {"video_url": "https://files.example/face.mp4", "audio_url": "https://files.example/speech.wav"}
RESULT = {"output_url": "https://store.example/x.mp4", "b2_bucket": "videos", "b2_file_name": "avatar/outputs/x.mp4"}
FAILURE = {"message": "no face", "error_type": "media_error", "retryable": False, "stage": "preprocessing", "details": {}}


@dataclass(frozen=True)
class House:
    """One worker's queue."""

    data_dir: Path
    queue: Queue
    control: Control
    outbox: Outbox

    def identity(self, **changes: Any) -> Identity:
        values = {"worker_id": "w-1", "worker_type": "main", "mode": "main", "provider": "local", "engine": "musetalk"}
        return Identity(**{**values, "shape": "musetalk", "version": "0", "data_dir": self.data_dir, **changes})

    def model_is_loaded(self) -> None:
        self.control.publish("inference", {"engine": "musetalk", "model_loaded": True})

    def job(self, state: str, job_id: str = "job-1", source: str = "main", **changes: Any) -> Job:
        """A job that was brought to a state by the moves that lead there."""
        values = {"engine": "musetalk", "inputs": LINKS, "params": {}, "id": job_id, "source": source}
        job, _ = self.queue.add(NewJob(**{**values, **changes}))
        for stage, result in ((FETCH, {}), (GENERATE, {"metrics": {"frames": 50}}), (UPLOAD, RESULT)):
            if job.state == state:
                return job
            taken = self.queue.take(stage, f"{stage.program}/test")
            assert taken is not None
            job = taken
            if job.state == state:
                return job
            if state == "failed":
                return self.queue.fail(job, FAILURE)
            if state == "cancelled":
                return self.queue.cancelled(job, "by hand")
            job = self.queue.done(stage, job, {**result, "stage_times": {"upload": 0.5} if stage is UPLOAD else {}})
        assert job.state == state
        return job


def open_house(data_dir: Path) -> House:
    migrations.prepare(data_dir / "jobs.db")
    database = Database(data_dir / "jobs.db")
    return House(data_dir, Queue(database), Control(database), Outbox(database))


@contextmanager
def running(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """The loops in threads, ended when the block is left."""
    stop = threading.Event()
    threads = [threading.Thread(target=loop, args=(stop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "a loop did not end"


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """What the condition gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
    return value
