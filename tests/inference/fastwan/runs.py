"""Jobs for the tests of the engine: images, runs, and what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inference.engine import Inputs, Metrics
from inference.engines.fastwan.engine import Engine
from inference.engines.fastwan.job import Times
from media import video
from media.still import Picture
from weights.plans import PLANS

#: Everything resident, the text encoder on the CPU: what a machine without a card does.
BESIDE = replace(PLANS[0], name="cpu", text="cpu", chunk=2)


def painting(path: Path, width: int = 96, height: int = 64, seed: int = 0) -> Path:
    """An image of soft blots."""
    blots = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


def ignore(phase: str, done: int, total: int) -> None:
    """A progress that nobody follows."""


def run(engine: Engine, output: Path, image: Path | None, progress: Any = ignore, **said: Any) -> Metrics:
    """One job of 64x64 and nine frames, unless `said` says otherwise; params go under their own name."""
    params = said.pop("params", {})
    fields = {"prompt": "a person smiles", "width": 64, "height": 64, "num_frames": 9, "seed": 1, **said}
    prepared = engine.prepare(Inputs(image=image, fields=fields), params, progress)
    return engine.generate(prepared, output, progress)


def latents(engine: Engine, image: Path) -> Any:
    """What the steps make of a job of 64x64 and five frames."""
    fields = {"prompt": "a person", "width": 64, "height": 64, "num_frames": 5}
    return engine._denoised(engine.prepare(Inputs(image=image, fields=fields), {}, ignore), lambda _: None, Times(0.0))


def pictures(path: Path) -> list[Picture]:
    return list(video.pictures(video.open_clip(path)))
