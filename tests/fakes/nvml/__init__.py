"""A made-up NVIDIA driver library: tests on a machine without a GPU see one, several, or a lost one.

    library = build(tmp_path)                                   # needs a C compiler, see `compiler`
    state = tmp_path / "gpu"
    write_state(state, {"count": 2, "1.name": "NVIDIA L4", "utilization_gpu": 88})
    subprocess.Popen([...], env=child_environment(**environment(library, state)))
    write_state(state, {"count": 2, "1.error": GPU_IS_LOST})    # seen by the running process at its next look

The keys of the state are written at the top of nvml.c.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15


def compiler() -> str | None:
    """A C compiler of this machine; without one the tests that need the library are skipped."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(directory: Path) -> Path:
    """Compile the library into `directory`; its path. Raises FileNotFoundError without a compiler."""
    command = compiler()
    if command is None:
        raise FileNotFoundError("no C compiler (cc, gcc or clang) on PATH")
    library = directory / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml.c")
    flags = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([command, *flags, "-o", str(library), str(source)], check=True, capture_output=True, text=True)
    return library


def environment(library: Path, state: Path) -> dict[str, str]:
    """The variables with which a child process finds this library in place of the driver's."""
    return {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML_STATE": str(state)}


def write_state(state: Path, values: Mapping[str, object]) -> None:
    """Replace the state in one step, so that no reader sees half of it."""
    new = state.with_name(state.name + ".new")
    new.write_text("".join(f"{key} {value}\n" for key, value in values.items()))
    os.replace(new, state)
