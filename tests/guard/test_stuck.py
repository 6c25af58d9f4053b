"""A program that gives no sign of life is ended; one that the watcher merely could not see is not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.stuck import Watch
from supervision import Program


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "3600"]) as process:
        yield process
        process.kill()


def program(process: subprocess.Popen[bytes], state: str = "RUNNING") -> list[Program]:
    return [Program(name="poller", state=state, pid=process.pid, up_s=100)]


def look_every_5_s(watch: Watch, programs: list[Program], seconds: int, start_s: int = 1000) -> list[str]:
    return [name for now_s in range(start_s, start_s + seconds + 1, 5) for name in watch.look(programs, float(now_s))]


def test_a_silent_program_is_ended(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    assert look_every_5_s(Watch(tmp_path, {"poller": 20}), program(running), 25) == ["poller"]
    assert running.wait(5) == -signal.SIGKILL


def test_a_program_that_touches_its_file_lives(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    watch, file = Watch(tmp_path, {"poller": 20}), tmp_path / "alive-poller"
    for now_s in range(0, 100, 5):
        file.touch()
        os.utime(file, ns=(now_s, now_s))
        assert watch.look(program(running), float(now_s)) == []


def test_a_jump_of_the_clock_of_the_wall_ends_nobody(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    watch, file = Watch(tmp_path, {"poller": 20}), tmp_path / "alive-poller"
    file.touch()
    os.utime(file, (1, 1))  # half a century ago
    assert look_every_5_s(watch, program(running), 15) == []


def test_a_watcher_that_was_frozen_begins_anew(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    watch = Watch(tmp_path, {"poller": 20})
    assert look_every_5_s(watch, program(running), 15) == []
    assert watch.look(program(running), 5000.0) == []


def test_a_program_that_is_being_stopped_or_has_no_limit_is_left_alone(
    tmp_path: Path, running: subprocess.Popen[bytes]
) -> None:
    assert look_every_5_s(Watch(tmp_path, {"poller": 20}), program(running, "STOPPING"), 60) == []
    assert look_every_5_s(Watch(tmp_path, {"uploader": 20}), program(running), 60) == []


def test_a_new_life_has_its_own_time(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    watch = Watch(tmp_path, {"poller": 20})
    assert look_every_5_s(watch, program(running), 20) == []
    with subprocess.Popen(["sleep", "3600"]) as next_life:
        assert look_every_5_s(watch, program(next_life), 15, start_s=1025) == []
        next_life.kill()
