"""`worker bench` on a running worker: its figures are its jobs', and nothing of it is left at work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import supervision
from cli import bench
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import Job
from jobqueue.migrations import prepare
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from tests.cli.conftest import CHECKOUT, Run
from tests.patience import free_port, until
from tests.torture.worker import Worker

ENGINE = "tests.fakes.engines.fails_when_told"


@dataclass(frozen=True, kw_only=True)
class Up:
    """A running worker, and who acts on it."""

    worker: Worker
    operator: Operator

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-m", "cli", "bench", *arguments], subprocess.PIPE
        return subprocess.Popen(command, cwd=CHECKOUT, env=self.worker.environment, stdout=pipe, stderr=pipe, text=True)

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*arguments) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def jobs(self) -> list[Job]:
        return self.operator.queue.newest(limit=500)

    def all_ended(self) -> bool:
        return self.operator.queue.unfinished() == []

    @contextlib.contextmanager
    def inference_stopped(self) -> Iterator[None]:
        """It renders nothing and says nothing."""
        (program,) = [program for program in supervision.programs(self.worker.run_dir) if program.name == "inference"]
        assert program.pid
        os.kill(program.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(program.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with tempfile.TemporaryDirectory(prefix="w-") as path:
        worker = Worker(Path(path), {"ENGINE": ENGINE, "HTTP_PORT": str(free_port())})
        prepare(worker.data_dir / "jobs.db")
        database = Database(worker.data_dir / "jobs.db")
        control = Control(database)
        worker.begin()
        try:
            until(lambda: control.published().get("inference", {}).get("model_loaded"), 60)
            operator = Operator(actor="test", queue=Queue(database), control=control, outbox=Outbox(database))
            yield Up(worker=worker, operator=operator)
        finally:
            worker.end()


def test_no_job_repeats_the_prompt_of_another() -> None:
    one, two = (bench.fields("fastwan", name) for name in ("bench-1", "bench-2"))
    assert one["musetalk_job_id"] == "bench-1"
    assert one["prompt"] != two["prompt"]
    assert list(bench.fields("musetalk", "bench-1")) == ["musetalk_job_id"]


@pytest.mark.usefixtures("operator")
def test_without_a_worker_it_says_how_to_start_one(worker: Run, folder: Path) -> None:
    done = worker("bench")
    assert done.returncode == 1
    assert done.stderr == f"no worker is running in {folder}/data; start it with worker up, or set DATA_DIR\n"


def test_its_figures_are_those_of_its_jobs(up: Up) -> None:
    with up.inference_stopped():
        up.operator.sample("musetalk", up.worker.data_dir)
        process = up.begin("--jobs", "2", "--json")
        until(lambda: len(up.jobs()) == 3)
    out, err = process.communicate(timeout=60)
    found = json.loads(out)
    assert (found["engine"], found["device"], found["store"]) == ("fails_when_told", "cpu", "local")
    assert (found["jobs"], found["other_jobs"]) == (2, 1)
    assert err.startswith("1 other job is in the queue and will share the GPU with these\n")
    assert found["jobs_per_hour"] == pytest.approx(2 * 3600 / found["seconds"], rel=0.01)
    stages = ("preprocessing", "inference", "postprocessing")
    assert list(found["later_s"]) == ["wait", "fetch", "generate", *stages, "upload", "all"]
    assert 0 < found["first_s"]["generate"] < found["first_s"]["all"] <= found["seconds"]
    assert 0 < found["rendering"] <= 1
    jobs = {job.id: job for job in up.jobs()}
    assert {(jobs[name].source, jobs[name].state) for name in found["ids"]} == {("local", "succeeded")}


def test_where_no_job_would_start_it_says_why_and_submits_none(up: Up) -> None:
    before = len(up.jobs())
    up.operator.control.put_up("unfit", "no fan", "test")
    try:
        done = up.bench()
    finally:
        up.operator.control.take_down("unfit", "test")
    assert (done.returncode, done.stderr) == (5, "the worker is unfit (no fan); worker doctor says what to do\n")
    assert len(up.jobs()) == before


def test_without_an_engine_it_says_what_the_engine_says(up: Up) -> None:
    loaded = up.operator.control.published()["inference"]
    with up.inference_stopped():
        up.operator.control.publish("inference", {"model_loaded": False, "reason": "the weights are missing"})
        done = up.bench()
        up.operator.control.publish("inference", loaded)
    line = "no engine is loaded: the weights are missing; worker status shows when one is\n"
    assert (done.returncode, done.stderr) == (5, line)


def test_a_sample_that_fails_ends_it_with_the_jobs_own_error(up: Up) -> None:
    told = up.worker.data_dir / "no-face"
    told.touch()
    try:
        done = up.bench("--jobs", "1")
    finally:
        told.unlink()
    assert done.returncode == 1
    assert "failed: no face found in the video; see worker jobs bench-" in done.stderr.splitlines()[-1]
    until(up.all_ended)


def test_when_the_time_is_up_the_rest_is_cancelled(up: Up) -> None:
    done = up.bench("--jobs", "2", "--timeout", "0")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("0 of 2 jobs were finished after 0 s; the others are cancelled; ")
    until(up.all_ended)


def test_stopped_it_cancels_its_jobs(up: Up) -> None:
    before = up.operator.queue.counts().get("succeeded", 0)
    with up.begin("--jobs", "500") as process:
        until(lambda: up.operator.queue.counts().get("succeeded", 0) > before)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (1, "stopped; the unfinished jobs are cancelled")
    until(up.all_ended)
    until(lambda: up.operator.outbox.waiting() == 0)
