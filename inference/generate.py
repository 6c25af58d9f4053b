"""Stage 2: one job through the engine, under a deadline. Files in, one file out; no network.

A stuck job cannot be stopped by a Python thread (C code may hold the interpreter), so the process exits: `faulthandler` prints
every stack and exits if there is no progress for STALL_S or the job's time is up; supervisord restarts it and the queue
counts the crash.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import media.probe
from errors import EngineFailed, JobError, shortage
from inference.ahead import Ahead
from inference.engine import Engine, Metrics
from inference.inputs import inputs_of
from jobqueue import clock, faults, spool
from jobqueue.job import Job
from jobqueue.worker import Progress
from media import glimpse

#: A job without progress for this long is stuck, in seconds.
STALL_S = 300.0

#: Start and size of each engine phase within the job's progress (PROTOCOL §3).
PHASES = {"preparing": (0.10, 0.10), "inferring": (0.20, 0.70), "encoding": (0.90, 0.0)}


class CardLost(BaseException):
    """The card no longer responds to this process: it must exit, and the next one repeats the job. Not an `Exception`, or this
    job and all following ones would be blamed."""


@dataclass(frozen=True, kw_only=True)
class Generate:
    """What the stage needs: give `Generate(...).do` to `jobqueue.worker.work`."""

    engine: Engine
    data_dir: Path
    timeout_s: float
    ahead: Ahead | None = None

    def do(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Render the job's output file. Raises JobError, Cancelled, LostJob; CardLost."""
        written = spool.attempt_file(self.data_dir, job.id, job.owner or "nobody")
        self._remove_leftovers(job)
        faults.point("generate.before_engine")
        began = time.monotonic()
        deadline = began + max(1.0, self.timeout_s - (clock.now() - job.stage_since))
        try:
            metrics = self._run(job, written, progress, deadline)
            _check(written, metrics)
            faults.point("generate.after_write")
            spool.keep(written, spool.output_file(self.data_dir, job.id))
            _keep_frame(glimpse.beside(written), spool.frame_file(self.data_dir, job.id, None))
            faults.point("generate.after_rename")
        except OSError as error:
            raise shortage(error) or EngineFailed(f"{type(error).__name__}: {error.strerror or error}") from error
        except RuntimeError as error:  # CUDA errors are RuntimeErrors
            if getattr(self.engine, "is_lost", bool)():
                raise CardLost(str(error)) from error
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
            written.unlink(missing_ok=True)
            glimpse.beside(written).unlink(missing_ok=True)
        return self._result(job, metrics, time.monotonic() - began)

    def _run(self, job: Job, written: Path, progress: Progress, deadline: float) -> Metrics:
        def report(phase: str, done: int, total: int) -> None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise EngineFailed(f"the job took longer than {self.timeout_s:.0f} s (JOB_TIMEOUT_SEC)")
            faulthandler.dump_traceback_later(min(STALL_S, left + 5), exit=True)
            start, share = PHASES[phase]
            progress(phase, start + share * done / max(total, 1), done, total)

        report("preparing", 0, 1)
        prepared = self.ahead.take(job, lambda done, total: report("preparing", done, total)) if self.ahead else None
        if prepared is None:
            prepared = self.engine.prepare(inputs_of(job, self.data_dir), job.params, report)
        return self.engine.generate(prepared, written, report)

    def _remove_leftovers(self, job: Job) -> None:
        for old in spool.folder(self.data_dir, job.id).glob("output-*.tmp.*"):
            old.unlink(missing_ok=True)

    def _result(self, job: Job, metrics: Metrics, wall_s: float) -> dict[str, Any]:
        output = spool.output_file(self.data_dir, job.id)
        sha1 = spool.sha1_of(output)  # the uploader stores only a file with this digest
        numbers = {
            "engine": self.engine.name,
            "frames": metrics.frames,
            "fps": round(metrics.fps, 3),
            "width": metrics.width,
            "height": metrics.height,
            "duration_sec": round(metrics.duration_sec, 3),
            "GENERATION_TIME_SEC": round(metrics.stage_times.get("inference", wall_s), 3),
            "SCRIPT_WALL_TIME_SEC": round(wall_s, 3),
            "PEAK_VRAM_MIB": metrics.peak_vram_mib,
            "peak_vram_gb": None if metrics.peak_vram_mib is None else round(metrics.peak_vram_mib / 1024, 2),
            "PEAK_RAM_KB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            **metrics.extra,
        }
        times = {name: round(seconds, 3) for name, seconds in metrics.stage_times.items()}
        return {"stage_times": times, "metrics": numbers, "size_bytes": output.stat().st_size, "sha1": sha1}


def _check(written: Path, metrics: Metrics) -> None:
    """The file must be what the engine reported: a video of that size that decodes at both ends."""
    try:
        found = media.probe.probe(written)
    except JobError as error:
        raise EngineFailed(f"the engine wrote a broken video: {error.message}", stage="postprocessing") from error
    if found.kind != "video" or (found.width, found.height) != (metrics.width, metrics.height):
        raise EngineFailed(
            f"the engine wrote a {found.kind} of {found.width}x{found.height}, not a video of {metrics.width}x{metrics.height}",
            stage="postprocessing",
        )


def _keep_frame(newest: Path, kept: Path) -> None:
    with contextlib.suppress(OSError):  # an engine that writes its video differently leaves none
        os.replace(newest, kept)
