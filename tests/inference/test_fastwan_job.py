"""FastWan from end to end: the program `inference` takes jobs to files."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from jobqueue import spool
from jobqueue.job import FETCH, NewJob
from media import probe
from tests.inference.fastwan.runs import painting
from tests.inference.test_program import Program, running
from tests.patience import until

#: The libraries alone take many seconds to import on a busy machine.
LOADS_WITHIN_S = 90.0
FIELDS = {"image_url": "x", "prompt": "a person smiles", "num_frames": 9, "width": 90, "height": 70, "steps": 4, "seed": 42}


def add(program: Program, job_id: str, image: bytes, **fields: object) -> None:
    program.queue.add(NewJob(id=job_id, source="local", engine="fastwan", inputs={**FIELDS, **fields}, params={}))
    job = program.queue.take(FETCH, "poller/test")
    assert job is not None
    spool.folder(program.data_dir, job_id).mkdir(parents=True)
    spool.input_file(program.data_dir, job_id, "image_url").write_bytes(image)
    program.queue.done(FETCH, job, {"stage_times": {"download": 0.1}})


def test_the_program_takes_jobs_through_the_engine(repository: Path, tmp_path: Path) -> None:
    image = painting(tmp_path / "i.png", 200, 150).read_bytes()
    with running(tmp_path, "fastwan", MODELS_DIR=str(repository)) as program:
        until(lambda: program.control.published().get("inference", {}).get("model_loaded"), LOADS_WITHIN_S)
        add(program, "a", image)
        add(program, "b", image, num_frames=5000)
        add(program, "c", image, num_frames=5)
        jobs = {name: program.wait("generated", "failed", job_id=name) for name in "abc"}
    assert [jobs[name].state for name in "abc"] == ["generated", "failed", "generated"]
    error = jobs["b"].error or {}
    assert error["error_type"] == "media_error"
    assert "num_frames: got 5000, must be 1 to 241" in error["message"]
    found = probe.probe(spool.output_file(tmp_path, "a"))
    assert (found.kind, found.width, found.height) == ("video", 64, 64)
    numbers = jobs["a"].result["metrics"]
    assert (numbers["engine"], numbers["frames"], numbers["steps_used"]) == ("fastwan", 9, 3)
    assert (numbers["video_sec"], numbers["video_fps"], numbers["width"], numbers["height"]) == (0.375, 24, 64, 64)
    assert numbers["fps"] == pytest.approx(9 / numbers["duration_sec"], rel=0.02)
    assert jobs["c"].result["metrics"]["prompt_cache"] == "hit"


def test_without_weights_a_worker_of_a_fleet_says_which_command_fetches_them(tmp_path: Path) -> None:
    with running(tmp_path, "fastwan", MODELS_DIR=str(tmp_path), ORCHESTRATOR_BASE_URL="http://127.0.0.1:9") as program:
        reason = until(lambda: program.control.flag("unfit"), LOADS_WITHIN_S)["reason"]
    assert "worker models pull fastwan" in reason
