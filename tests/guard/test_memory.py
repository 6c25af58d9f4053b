"""Who is ended when memory is gone, by the files of a control group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from guard.memory import Pressure
from supervision import Program

MB = 1 << 20


def group(folder: Path, limit: int, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    return folder


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
