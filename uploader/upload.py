"""Stage 3: upload one output to the store, verify every byte, and add a JSON sidecar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import EngineFailed, shortage
from jobqueue import clock, faults, spool
from jobqueue.job import Job
from jobqueue.worker import Progress
from uploader.stores import Store


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What the stage needs: give `Upload(...).do` to `jobqueue.worker.work`."""

    store: Store
    prefix: str
    data_dir: Path
    worker_id: str

    def do(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Store the job's output under its own name, so that a second upload gives the same object. Raises JobError."""
        output = spool.output_file(self.data_dir, job.id)
        if not output.is_file():
            raise EngineFailed("the finished video is missing on this machine")
        name = f"{self.prefix.strip('/')}/{job.id}.mp4".lstrip("/")
        began = time.monotonic()
        progress("uploading", 0.95)
        sha1 = _checked_sha1(output, job)
        faults.point("upload.before_put")
        stored = self.store.put(output, name, "video/mp4", sha1, lambda done, total: progress("uploading", 0.95, done, total))
        faults.point("upload.after_put")
        seconds = round(time.monotonic() - began, 3)
        self.store.put_json(name.removesuffix(".mp4") + ".json", self._sidecar(job, stored.url, stored.size_bytes, stored.sha1))
        faults.point("upload.after_sidecar")
        return {
            "stage_times": {"upload": seconds},
            "output_url": stored.url,
            "b2_bucket": stored.bucket,
            "b2_file_name": stored.file_name,
        }

    def _sidecar(self, job: Job, url: str, size_bytes: int, sha1: str) -> dict[str, Any]:
        return {
            "musetalk_job_id": job.id,
            "queue_job_id": job.queue_job_id,
            "buffer_job_id": job.buffer_job_id,
            "engine": job.engine,
            "worker_id": self.worker_id,
            "params": job.params,
            "output_url": url,
            "size_bytes": size_bytes,
            "sha1": sha1,
            "stage_times": job.result.get("stage_times", {}),
            "metrics": job.result.get("metrics", {}),
            "created_at": job.created_at,
            "stored_at": clock.utc(),
        }


def _checked_sha1(output: Path, job: Job) -> str:
    """The SHA-1 of the finished video, which must be the same as when it was rendered; otherwise it is rendered again."""
    try:
        sha1 = spool.sha1_of(output)
    except OSError as error:
        raise shortage(error) or EngineFailed(f"the finished video cannot be read: {error.strerror}") from error
    if sha1 != job.result.get("sha1", sha1):
        raise EngineFailed("the finished video differs from what was rendered: this machine's disk has corrupted it")
    return sha1
