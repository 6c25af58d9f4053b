"""Its card falls away in every job; it loads well each time."""

from __future__ import annotations

from pathlib import Path

from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "loses_its_card_always"

    def is_lost(self) -> bool:
        return True

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
