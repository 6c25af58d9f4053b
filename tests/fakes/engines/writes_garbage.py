"""Says that it made a video and writes something else."""

from __future__ import annotations

from pathlib import Path

from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "writes_garbage"

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        output.write_bytes(b"not a video")
        return Metrics(frames=1, fps=25, width=64, height=64, duration_sec=1.0, stage_times={})
