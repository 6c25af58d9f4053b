"""Stage 3 by itself: what is stored is what was rendered."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from errors import EngineFailed
from jobqueue import migrations, spool
from jobqueue.database import Database
from jobqueue.job import FETCH, GENERATE, UPLOAD, Job, NewJob
from jobqueue.queue import Queue
from jobqueue.worker import Progress
from uploader.stores.directory import DirectoryStore
from uploader.upload import Upload


def rendered(data_dir: Path) -> tuple[Job, Progress, Path]:
    """A job that is to be stored, and its video."""
    migrations.prepare(data_dir / "jobs.db")
    queue = Queue(Database(data_dir / "jobs.db"))
    queue.add(NewJob(id="j1", source="main", engine="musetalk", inputs={}))
    video = spool.output_file(data_dir, "j1")
    video.parent.mkdir(parents=True)
    video.write_bytes(b"a video")
    for stage in (FETCH, GENERATE):
        taken = queue.take(stage, f"{stage.program}/test")
        assert taken
        queue.done(stage, taken, {"sha1": spool.sha1_of(video)} if stage is GENERATE else {})
    job = queue.take(UPLOAD, "uploader/test")
    assert job
    return job, Progress(queue, job, threading.Event(), 5.0), video


def upload(data_dir: Path) -> Upload:
    return Upload(store=DirectoryStore(data_dir / "outputs", "http://x"), prefix="a", data_dir=data_dir, worker_id="w")


def test_what_was_rendered_is_stored(tmp_path: Path) -> None:
    job, progress, _ = rendered(tmp_path)
    assert upload(tmp_path).do(job, progress)["output_url"] == "http://x/outputs/a/j1.mp4"
    assert (tmp_path / "outputs/a/j1.mp4").read_bytes() == b"a video"


def test_a_video_that_the_disk_has_changed_is_not_stored_and_the_job_can_be_done_again(tmp_path: Path) -> None:
    job, progress, video = rendered(tmp_path)
    video.write_bytes(b"a vidEo")
    with pytest.raises(EngineFailed, match="differs from what was rendered") as raised:
        upload(tmp_path).do(job, progress)
    assert raised.value.retryable
    assert not (tmp_path / "outputs/a/j1.mp4").exists()
