"""Finds no face in any video while there is a file `no-face` in DATA_DIR."""

from __future__ import annotations

from pathlib import Path

from errors import InvalidInput
from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "fails_when_told"

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        if (output.parents[2] / "no-face").exists():
            raise InvalidInput("no face found in the video", stage="preprocessing")
        return super().generate(prepared, output, progress)
