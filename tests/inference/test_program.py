"""The real program `inference` in a process of its own, with engines that behave and engines that do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import settings
from inference.__main__ import Inference
from jobqueue import migrations, spool
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.job import FETCH, Job, NewJob
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from service import Service
from settings import child_environment
from tests.api.program import ROOT
from tests.fakes import clips, nvml
from tests.fakes.engines.copies import made_from
from tests.patience import until


@dataclass
class Program:
    """The test stands in for the poller: it brings jobs to where inference takes them."""

    data_dir: Path
    environment: dict[str, str]
    queue: Queue
    control: Control
    outbox: Outbox
    process: subprocess.Popen[bytes]

    def begin(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "inference"], cwd=ROOT, env=self.environment)

    def add(self, job_id: str = "a", video: bytes | None = None, **params: object) -> None:
        add(self.queue, self.data_dir, job_id, video, **params)

    def job(self, job_id: str = "a") -> Job:
        job = self.queue.get(job_id)
        assert job is not None
        return job

    def wait(self, *states: str, job_id: str = "a") -> Job:
        until(lambda: self.job(job_id).state in states)
        return self.job(job_id)


def add(queue: Queue, data_dir: Path, job_id: str, video: bytes | None = None, **params: object) -> None:
    """A job whose files are fetched."""
    inputs = {"video_url": "x", "audio_url": "y"}
    queue.add(NewJob(id=job_id, source="local", engine="musetalk", inputs=inputs, params=params))
    job = queue.take(FETCH, "poller/test")
    assert job is not None
    spool.folder(data_dir, job_id).mkdir(parents=True)
    spool.input_file(data_dir, job_id, "video_url").write_bytes(video or clips.video())
    spool.input_file(data_dir, job_id, "audio_url").write_bytes(clips.speech())
    queue.done(FETCH, job, {"stage_times": {"download": 0.1}})


@contextmanager
def running(data_dir: Path, engine: str, **variables: str) -> Iterator[Program]:
    migrations.prepare(data_dir / "jobs.db")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "TMPDIR": str(data_dir), "DATA_DIR": str(data_dir), "ENGINE": engine, **variables}
    database = Database(data_dir / "jobs.db")
    process = subprocess.Popen([sys.executable, "-c", ""])
    program = Program(data_dir, environment, Queue(database), Control(database), Outbox(database), process)
    process.wait()
    program.begin()
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()
        database.close()


def fake(name: str) -> str:
    return f"tests.fakes.engines.{name}"


def test_a_job_goes_through_the_engine_and_keeps_its_numbers(tmp_path: Path) -> None:
    with running(tmp_path, fake("copies")) as program:
        program.add()
        job = program.wait("generated", "failed")
        assert job.state == "generated", job.error
        output = spool.output_file(tmp_path, "a").read_bytes()
        assert output == made_from(clips.video(), clips.speech())
        assert job.result["size_bytes"] == len(output)
        assert job.result["metrics"]["engine"] == "copies"
        assert job.result["stage_times"]["inference"] > 0
        assert not list(spool.folder(tmp_path, "a").glob("*.tmp*"))


def test_a_killed_program_finds_its_job_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with running(tmp_path, fake("slow")) as program:
        program.add()
        program.wait("generating")
        until(lambda: program.job().progress > 0.2)
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
        program.environment["ENGINE"] = fake("copies")
        program.begin()
        job = program.wait("generated", "failed")
        assert (job.state, [event.state for event in program.outbox.history("a")].count("generating")) == ("generated", 2)


def test_cancel_is_obeyed_within_the_job(tmp_path: Path) -> None:
    with running(tmp_path, fake("slow")) as program:
        program.add()
        program.wait("generating")
        program.queue.cancel("a", "not wanted")
        assert program.wait("cancelled").cancel_reason == "not wanted"


@pytest.mark.slow
def test_an_engine_stuck_in_c_code_ends_by_its_deadline_with_its_stacks_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, fake("hangs"), JOB_TIMEOUT_SEC="1") as program:
        program.add()
        until(lambda: program.process.poll() is not None)
        assert program.process.returncode == 1
        program.begin()
        job = program.wait("failed")
        assert job.error is not None
        assert "JOB_TIMEOUT_SEC" in job.error["message"]
        assert job.error["retryable"] is True


def test_a_lost_card_ends_the_program_and_the_next_life_does_the_job(tmp_path: Path) -> None:
    with running(tmp_path, fake("loses_its_card")) as program:
        program.add()
        assert program.process.wait(20) == 1
        assert program.job().state == "generating"
        program.begin()
        program.wait("generated")


@pytest.mark.slow
def test_a_card_that_is_lost_again_and_again_makes_the_worker_unfit_and_costs_others_jobs_nothing(tmp_path: Path) -> None:
    with running(tmp_path, fake("loses_its_card_always")) as program:
        program.add("a")
        program.add("b")
        for _ in range(4):
            program.process.wait(20)
            program.begin()
        flag = until(lambda: program.control.flag("unfit"))
        assert "illegal memory access" in flag["reason"]
        until(lambda: "4 times in a row" in str(program.control.published()["inference"]["reason"]))
        assert program.process.poll() is None
        assert (program.job("a").state, program.job("b").state) == ("failed", "ready")
        assert program.job("b").crashes == 1


@pytest.mark.slow
def test_a_job_that_is_done_forgets_that_the_card_was_lost(tmp_path: Path) -> None:
    with running(tmp_path, fake("loses_its_card")) as program:
        program.add()
        program.process.wait(20)
        assert program.control.card_losses()[0] == 1
        program.begin()
        program.wait("generated")
        until(lambda: program.control.card_losses()[0] == 0)


def test_a_full_card_is_tried_again_and_then_handed_back_as_retryable(tmp_path: Path) -> None:
    with running(tmp_path, fake("runs_out_of_memory")) as program:
        program.add()
        job = program.wait("failed")
        assert job.error is not None
        assert (job.error["error_type"], job.error["retryable"]) == ("processing_error", True)
        assert [event.state for event in program.outbox.history("a")].count("generating") == 3


@pytest.mark.slow
def test_a_broken_output_never_becomes_the_jobs_output(tmp_path: Path) -> None:
    with running(tmp_path, fake("writes_garbage")) as program:
        program.add()
        job = program.wait("failed")
        assert job.error is not None
        assert job.error["stage"] == "postprocessing"
        assert not spool.output_file(tmp_path, "a").exists()


def test_sigterm_ends_an_idle_program_with_zero(tmp_path: Path) -> None:
    with running(tmp_path, fake("slow")) as program:
        until(lambda: program.control.published().get("inference", {}).get("model_loaded"))
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(20) == 0


def test_an_engine_without_weights_makes_the_worker_unfit_and_says_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, fake("cannot_load")) as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert "worker models pull" in flag["reason"]
        program.add()
        assert program.job().state == "ready"


def test_what_a_minute_has_not_mended_costs_others_jobs_nothing(tmp_path: Path) -> None:
    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(0.02)

    migrations.prepare(tmp_path / "jobs.db")
    queue, stop = Queue(Database(tmp_path / "jobs.db")), Impatient()
    add(queue, tmp_path, "mine")
    queue.add(NewJob(id="theirs", source="main", engine="musetalk", inputs={}))
    environment = {"DATA_DIR": str(tmp_path), "ENGINE": fake("cannot_load")}
    service = Service(program="inference", owner="inference/1", settings=settings.load(environment))
    trying = threading.Thread(target=Inference(service, queue, Control(queue.database))._load_until_it_works, args=(stop,))
    trying.start()
    until(lambda: queue.counts().get("failed"))
    stop.set()
    trying.join()
    job = queue.get("theirs")
    assert job is not None
    assert job.error is not None
    assert (job.state, job.error["retryable"]) == ("failed", True)
    assert "worker models pull" in job.error["message"]
    assert queue.counts() == {"failed": 1, "ready": 1}


def test_a_card_that_refuses_the_engines_kernels_makes_the_worker_unfit_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path, fake("fails_on_its_card")) as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert "cannot run on" in flag["reason"]
        assert "no kernel image is available for execution on the device;" in flag["reason"]
        assert program.process.poll() is None


def test_an_engine_without_its_libraries_makes_the_worker_unfit_and_says_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, fake("lacks_a_library")) as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert "needs a_library_that_nobody_has, which is not installed; worker setup --engine" in flag["reason"]


def test_an_engine_whose_libraries_cannot_be_loaded_makes_the_worker_unfit_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path, fake("has_half_a_library")) as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert "has a dependency that cannot be loaded (libhalf.so.1: cannot open" in flag["reason"]
        assert program.process.poll() is None


def test_weights_that_may_not_be_read_make_the_worker_unfit_and_are_named(tmp_path: Path) -> None:
    with running(tmp_path, fake("may_not_read"), MODELS_DIR="/models") as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert "cannot be read: /models/unet.pth;" in flag["reason"]
        assert program.process.poll() is None


def test_the_preview_engine_runs_beside_half_a_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text('raise ImportError("libcudart.so.13: cannot open shared object file")')
    with running(tmp_path, "musetalk", PYTHONPATH=str(tmp_path)) as program:
        said = until(lambda: (word := program.control.published().get("inference")) and word["model_loaded"] and word)
        assert (said["engine"], said["device"]) == ("preview", "cpu")
        assert "libcudart.so.13" in said["note"]


@pytest.mark.slow
def test_a_machine_that_stands_alone_without_weights_runs_the_preview_engine_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "musetalk", MODELS_DIR=str(tmp_path / "none")) as program:
        said = until(lambda: (word := program.control.published().get("inference")) and word["model_loaded"] and word)
        assert said["engine"] == "preview"
        assert "preview engine" in said["note"]


def test_a_worker_of_a_fleet_without_weights_never_runs_the_preview_engine(tmp_path: Path) -> None:
    with running(
        tmp_path, "musetalk", MODELS_DIR=str(tmp_path / "none"), ORCHESTRATOR_BASE_URL="http://127.0.0.1:9"
    ) as program:
        flag = until(lambda: program.control.flag("unfit"))
        assert flag["by"] == "inference"


def test_a_card_that_torch_cannot_use_is_said_and_keeps_no_fleet_waiting(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch can use the card of this machine")
    if nvml.compiler() is None:
        pytest.skip("the made-up driver library needs a C compiler")
    nvml.write_state(tmp_path / "gpu", {"count": 1, "0.name": "NVIDIA Old"})
    environment = child_environment(**nvml.environment(nvml.build(tmp_path), tmp_path / "gpu"))
    command = [sys.executable, "-m", "tests.inference.which_device"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    alone, preview, fleet = done.stdout.splitlines()
    assert alone.startswith("cpu, torch ")
    assert "cannot use the NVIDIA Old: " in alone
    assert "until then musetalk runs on the CPU" in alone
    assert preview == "cpu, None"
    assert fleet.startswith("refused: torch ")
    assert fleet.endswith("; see worker doctor")


def test_a_second_inference_on_the_same_folder_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, fake("slow")) as program:
        program.add()
        program.wait("generating")
        other = subprocess.run([sys.executable, "-m", "inference"], cwd=ROOT, env=program.environment, timeout=20, check=False)
        assert other.returncode == 3
        assert program.job().state == "generating"
