"""Takes a minute for a job, in small steps, as a real engine does."""

from __future__ import annotations

import time
from pathlib import Path

from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "slow"

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        for step in range(600):
            progress("inferring", step, 600)
            time.sleep(0.1)
        return super().generate(prepared, output, progress)
