"""Hands the input video back in ten steps, marked with the digest of both inputs: what came out can be traced to what went in.

Writes a line to `ledger` beside the queue at the begin and the end of each job, so that a test sees who worked when.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import media.probe
from inference.engine import Inputs, Metrics, Progress

STEPS = 10
STEP_S = 0.01


class Engine:
    name = "copies"
    step_s = STEP_S

    def load(self, models: Path, device: str) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Inputs:
        self.step_s = float(params.get("step_s", STEP_S))
        return inputs

    def generate(self, prepared: Inputs, output: Path, progress: Progress) -> Metrics:
        assert prepared.video is not None
        assert prepared.audio is not None
        note(output, "begin")
        found = media.probe.probe(prepared.video)
        for step in range(STEPS):
            progress("inferring", step, STEPS)
            time.sleep(self.step_s)
        output.write_bytes(made_from(prepared.video.read_bytes(), prepared.audio.read_bytes()))
        note(output, "end")
        times = {"preprocessing": 0.0, "inference": STEPS * self.step_s, "postprocessing": 0.0}
        width, height = found.width or 0, found.height or 0
        return Metrics(frames=STEPS, fps=25, width=width, height=height, duration_sec=1.0, stage_times=times)


def made_from(video: bytes, audio: bytes) -> bytes:
    """The output for these inputs: the video, and a free box of MP4 that holds the digest of both."""
    digest = hashlib.sha256(video + audio).digest()
    return video + (8 + len(digest)).to_bytes(4, "big") + b"free" + digest


def note(output: Path, what: str) -> None:
    """One line: when, which process, which job's folder, begin or end."""
    line = f"{time.monotonic():.6f} {os.getpid()} {output.parent.name} {what}\n"
    with (output.parent.parent.parent / "ledger").open("a") as ledger:
        ledger.write(line)
