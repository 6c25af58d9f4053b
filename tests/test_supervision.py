"""The real programs under the real supervisord.conf: each comes back when it is killed, and all end together."""

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

import psutil
import pytest

import settings
import supervision
from tests.guard.supervised import CHECKOUT, DEADLINE_S, wait_for
from tests.patience import free_port

PROGRAMS = ("poller", "inference", "uploader", "api", "admin", "guard")
#: What all programs but inference may use together.
MAX_MEMORY_MIB = 400


@dataclass(frozen=True, kw_only=True)
class Up:
    """`worker up`, standing alone, with a quick engine and logs in JSON."""

    first: subprocess.Popen[bytes]
    data_dir: Path
    run_dir: Path
    stdout: Path

    def programs(self) -> dict[str, supervision.Program]:
        with contextlib.suppress(supervision.NotRunning):
            return {program.name: program for program in supervision.programs(self.run_dir) if program.pid is not None}
        return {}

    def all_run(self) -> bool:
        assert self.first.poll() is None, self.stdout.read_text()[-3000:]
        return {name for name, program in self.programs().items() if program.state == "RUNNING"} == set(PROGRAMS)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with tempfile.TemporaryDirectory(prefix="w-") as path:
        folder = Path(path)
        ports = {"HTTP_PORT": str(free_port()), "ADMIN_PORT": str(free_port())}
        ours = {"DATA_DIR": str(folder / "data"), "TMPDIR": path, "ENGINE": "tests.fakes.engines.copies", "LOG_FORMAT": "json"}
        environ = {**os.environ, **ours, **ports, "ADMIN_ENABLED": "1", "PYTHONPATH": str(CHECKOUT)}
        with (folder / "stdout").open("wb") as out:
            first = subprocess.Popen(
                [sys.executable, "-m", "cli", "up"], cwd=path, env=environ, stdout=out, start_new_session=True
            )
        run_dir = folder / settings.load({"DATA_DIR": ours["DATA_DIR"]}).run_dir.name
        found = Up(first=first, data_dir=folder / "data", run_dir=run_dir, stdout=folder / "stdout")
        try:
            wait_for(found.all_run, "all programs to run")
            yield found
        finally:
            first.kill()
            first.wait()


def test_the_doctor_examines_a_worker_that_runs(up: Up) -> None:
    wait_for(up.all_run, "all programs to run")
    environ = {**os.environ, "DATA_DIR": str(up.data_dir), "TMPDIR": str(up.run_dir.parent), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "cli", "doctor", "--json"]

    def examined() -> dict[str, dict[str, str]]:
        variables = environ | {"ENGINE": "preview", "DATA_LIMIT_GB": "0.1"}
        done = subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=60, check=False)
        return {finding["name"]: finding for finding in json.loads(done.stdout)["checks"]}

    wait_for(lambda: examined()["ports"]["level"] == "ok", "the api to answer")
    found = examined()
    assert found["ports"]["said"].endswith("/health answers 200")
    assert found["programs"]["said"].startswith("running: ")
    assert ", intact" in found["queue"]["said"]
    assert found["settings"]["said"] == "the worker was started with engine tests.fakes.engines.copies, here preview"


@pytest.mark.parametrize(
    "name", ["poller", "inference", *(pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS[2:])]
)
def test_a_killed_program_comes_back_with_nothing_left_of_its_old_self(up: Up, name: str) -> None:
    wait_for(up.all_run, "all programs to run")
    before = up.programs()
    pid = before[name].pid
    assert pid is not None
    family = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: name in (now := up.programs()) and now[name].pid != pid, f"{name} to come back")
    assert {other: p.pid for other, p in up.programs().items() if other != name} == {
        other: p.pid for other, p in before.items() if other != name
    }
    wait_for(lambda: not any(process.is_running() for process in family), "its children's end")
    wait_for(up.all_run, "it to be trusted again")


def test_a_frozen_program_that_is_killed_comes_back(up: Up) -> None:
    wait_for(up.all_run, "all programs to run")
    pid = up.programs()["uploader"].pid or 0
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it to be frozen")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "uploader" in (now := up.programs()) and now["uploader"].pid != pid, "it to come back")


def test_what_was_never_to_run_is_not_said(up: Up) -> None:
    wait_for(up.all_run, "all programs to run")
    assert {program.name for program in supervision.programs(up.run_dir)} == set(PROGRAMS)


def test_all_programs_but_inference_are_small(up: Up) -> None:
    wait_for(up.all_run, "all programs to run")
    roots = [psutil.Process(program.pid) for name, program in up.programs().items() if name != "inference"]
    processes = [up_process for root in roots for up_process in (root, *root.children(recursive=True))]
    used_mib = sum(process.memory_full_info().pss for process in (psutil.Process(up.first.pid), *processes)) >> 20
    assert used_mib < MAX_MEMORY_MIB


def test_status_from_another_environment_says_what_the_worker_was_started_with(up: Up) -> None:
    environ = {**os.environ, "DATA_DIR": str(up.data_dir), "TMPDIR": str(up.run_dir.parent), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-m", "cli", "status", "--json"], env=environ, capture_output=True, check=True)
    status = json.loads(done.stdout)
    assert (status["running"], status["engine"]) == (True, "tests.fakes.engines.copies")
    assert {program["name"] for program in status["programs"]} == set(PROGRAMS)


def test_only_the_owner_may_enter_the_folder_of_sockets(up: Up) -> None:
    assert up.run_dir.stat().st_mode & 0o777 == 0o700
    assert supervision.socket_file(up.run_dir).stat().st_mode & 0o077 == 0


def test_a_stop_ends_all_with_0_and_every_line_was_json(up: Up) -> None:
    family = psutil.Process(up.first.pid).children(recursive=True)
    assert len(family) >= len(PROGRAMS)
    up.first.terminate()
    assert up.first.wait(DEADLINE_S + 30) == 0
    assert [process for process in family if process.is_running()] == []
    events = [json.loads(line) for line in up.stdout.read_text().splitlines()]
    assert all({"at", "program", "level", "event"} <= event.keys() for event in events)
    assert events[-1]["event"] == "the worker exits: stopped"
