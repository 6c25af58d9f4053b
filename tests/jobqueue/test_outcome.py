from __future__ import annotations

from pathlib import Path
from typing import Any

from jobqueue import intake, migrations, outcome
from jobqueue.database import Database
from jobqueue.job import FETCH, GENERATE, Job
from jobqueue.queue import Queue

PAYLOAD = {"musetalk_job_id": "j1", "video_url": "https://a.example/v.mp4", "audio_url": "https://a.example/a.wav"}


def generated(folder: Path) -> Job:
    """A job that has come as far as the upload."""
    migrations.prepare(folder / "jobs.db")
    queue = Queue(Database(folder / "jobs.db"))
    queue.add(intake.new_job(PAYLOAD, "musetalk", "queue"))
    found: dict[str, dict[str, Any]] = {
        "fetch": {"stage_times": {"download": 1.25, "other": 9.0}},
        "generate": {"stage_times": {"inference": 2.0}},
    }
    found["generate"]["metrics"] = {"frames": 75, "engine": "preview", "linears": "fp8"}
    for stage in (FETCH, GENERATE):
        taken = queue.take(stage, f"{stage.program}/test")
        assert taken is not None
        job = queue.done(stage, taken, found[stage.name])
    return job


def test_metrics_have_every_name_of_the_contract_and_null_for_what_nobody_measured(tmp_path: Path) -> None:
    metrics = outcome.metrics(generated(tmp_path), "a card")
    times = dict.fromkeys(outcome.STEPS) | {"download": 1.25, "inference": 2.0}
    measured = {"gpu_class": "a card", "frames": 75, "engine": "preview", "total_time": 3.25, "stage_times": times}
    measured |= {"SCRIPT_WALL_TIME_SEC": 3.25, "linears": "fp8"}
    unknown = ("b2_bucket", "b2_file_name", "GENERATION_TIME_SEC", "PEAK_VRAM_MIB", "PEAK_RAM_KB", "fps")
    assert metrics == dict.fromkeys(unknown) | measured
