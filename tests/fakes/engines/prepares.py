"""Notes when it begins and ends to prepare and to generate each job. params: prepare_s, generate_s, how it `fails`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from errors import InvalidInput, OutOfMemory
from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies

STEP_S = 0.02


class Engine(copies.Engine):
    name = "prepares"
    prepares_ahead = True

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Any:
        assert inputs.video is not None
        copies.note(inputs.video, "prepare begins")
        steps = int(params.get("prepare_s", 0.2) / STEP_S)
        for step in range(steps):
            progress("preparing", step, steps)
            time.sleep(STEP_S)
        copies.note(inputs.video, "prepare ends")
        if params.get("fails") == "input":
            raise InvalidInput("no face found", stage="preprocessing")
        if params.get("fails") == "room" and not (marker := inputs.video.with_name("tried")).exists():
            marker.touch()
            raise OutOfMemory("no room beside the other job")
        return inputs, float(params.get("generate_s", 0.2))

    def generate(self, prepared: Any, output: Path, progress: Progress) -> Metrics:
        inputs, seconds = prepared
        engine = copies.Engine()
        engine.step_s = seconds / copies.STEPS
        return engine.generate(inputs, output, progress)
