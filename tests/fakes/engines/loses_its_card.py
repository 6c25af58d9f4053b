"""Its card falls away in the first job; a new process finds it again."""

from __future__ import annotations

from pathlib import Path

from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "loses_its_card"

    def __init__(self) -> None:
        self._lost = False

    def is_lost(self) -> bool:
        return self._lost

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        mark = output.parent / "was_lost"
        if not mark.exists():
            mark.touch()
            self._lost = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().generate(prepared, output, progress)
