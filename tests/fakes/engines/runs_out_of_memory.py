"""Finds the card full each time."""

from __future__ import annotations

from pathlib import Path

from errors import OutOfMemory
from inference.engine import Inputs, Metrics, Progress
from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "runs_out_of_memory"

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        raise OutOfMemory("the card is full: 23.1 of 24 GiB used, this job asked for 1.1 more")
