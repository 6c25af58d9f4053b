"""Gets stuck in C code that never comes back to the interpreter."""

from __future__ import annotations

import ctypes
from pathlib import Path

from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "hangs"

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        progress("inferring", 1, 10)
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter's lock
        raise AssertionError("it came back")
