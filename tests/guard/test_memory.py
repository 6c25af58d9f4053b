"""How much memory is left, from the files of a control group, and who is ended when it is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from guard.memory import Pressure, available
from supervision import Program

MB = 1 << 20


def group(folder: Path, limit: object, used: int, cache: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\ninactive_file {cache}\n")
    return folder


def test_a_limit_counts_and_the_cache_is_given_back(tmp_path: Path) -> None:
    assert available(group(tmp_path, 800 * MB, 700 * MB, 300 * MB)) == (400 * MB, 800 * MB)


def test_the_older_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    for name, value in (("limit_in_bytes", 800 * MB), ("usage_in_bytes", 500 * MB)):
        (tmp_path / "memory" / f"memory.{name}").write_text(str(value))
    assert available(tmp_path) == (300 * MB, 800 * MB)


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    assert available(group(tmp_path, "max", 1))[1] == psutil.virtual_memory().total
    assert available(tmp_path / "nowhere")[1] == psutil.virtual_memory().total


def test_the_biggest_program_is_ended_if_it_is_the_cause(tmp_path: Path) -> None:
    hold = "x = bytearray(60 << 20); print(flush=True); input()"
    with (
        subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1) as big,
        subprocess.Popen(["sleep", "3600"]) as small,
    ):
        assert big.stdout
        big.stdout.readline()
        programs = [
            Program(name=name, state="RUNNING", pid=process.pid, up_s=1) for name, process in (("small", small), ("big", big))
        ]
        pressure = Pressure(group(tmp_path, 100 * MB, 50 * MB))
        assert pressure.look(programs) is None
        group(tmp_path, 100 * MB, 99 * MB)
        assert pressure.look(programs) == "big"
        assert big.wait(5) == -9
        assert pressure.look(programs[:1]) is None
        small.kill()


def test_nobody_is_ended_if_nobody_is_the_cause(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "3600"]) as small:
        programs = [Program(name="small", state="RUNNING", pid=small.pid, up_s=1)]
        assert Pressure(group(tmp_path, 100 * MB, 100 * MB)).look(programs) is None
        small.kill()
