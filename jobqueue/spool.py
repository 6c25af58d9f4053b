"""Where a job's files are: one folder per job under DATA_DIR/jobs, named by a digest, since ids are untrusted.

The poller creates and deletes the folder; it is not deleted before the job's last event has been acknowledged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from jobqueue.job import Job


def folder(data_dir: Path, job_id: str) -> Path:
    """The job's folder; it need not exist."""
    return data_dir / "jobs" / hashlib.sha256(job_id.encode()).hexdigest()[:32]


def input_file(data_dir: Path, job_id: str, field: str) -> Path:
    """Where the file of an input like video_url is, once the job is ready."""
    return folder(data_dir, job_id) / f"input-{field.removesuffix('_url')}"


def output_file(data_dir: Path, job_id: str) -> Path:
    """Where the finished video is, once the job is generated."""
    return folder(data_dir, job_id) / "output.mp4"


def attempt_file(data_dir: Path, job_id: str, owner: str) -> Path:
    """Where one program run writes: named after it, because a killed process's child may keep writing for a moment."""
    return folder(data_dir, job_id) / f"output-{owner.replace('/', '-')}.tmp.mp4"


def frame_file(data_dir: Path, job_id: str, owner: str | None) -> Path:
    """Where the newest frame is: of the life that writes the video, or at the end (owner: None) of the video itself."""
    return (attempt_file(data_dir, job_id, owner) if owner else output_file(data_dir, job_id)).with_suffix(".jpg")


def stored_file(data_dir: Path, job: Job) -> Path | None:
    """Where the finished video is in the store of this machine; None if it is in a bucket, or nowhere."""
    name = job.result.get("b2_file_name")
    return data_dir / "outputs" / str(name) if name and not job.result.get("b2_bucket") else None


def keep(written: Path, target: Path) -> None:
    """Make a finished file durable under its name: fsync, rename, fsync of the folder."""
    sync(written)
    os.replace(written, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha1_of(path: Path) -> str:
    """The SHA-1 of a file, like the store's checksums."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def cache(data_dir: Path) -> Path:
    """Where engines keep their caches, a folder each; any file in it may be deleted at any time."""
    return data_dir / "cache"


def remove(data_dir: Path, job_id: str) -> None:
    """Delete the job's folder; it may be gone already."""
    shutil.rmtree(folder(data_dir, job_id), ignore_errors=True)
