"""The plug: what a model family must offer to be run by `inference/generate.py`.

An engine is a class `Engine` with the methods below, in the module `engine` of a package under `inference/engines/` that is
named as `ENGINE` says, or in any module that `ENGINE` names with a dot; a new one is found by its name and nothing else
changes. An engine never touches the network, the queue or the environment: files in, one file out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

#: progress(phase, frames_done, frames_total): phase is "preparing", "inferring" or "encoding". Cheap: call it every frame
#: or batch. Raises `errors.Cancelled` when the job is to end and `errors.LostJob` when it is no longer ours; let both pass.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files of one job, whole and known to be media. Which of them are set depends on the engine."""

    video: Path | None = None  # a person's video, or a still image (musetalk, preview)
    audio: Path | None = None  # speech (musetalk, preview)
    image: Path | None = None  # first frame (fastwan)
    fields: dict[str, Any] = field(default_factory=dict)  # the job's other inputs: prompt, width, aspect_ratio …


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a finished job says about itself. `stage_times`: seconds by preprocessing, inference, postprocessing."""

    frames: int
    fps: float
    width: int
    height: int
    duration_sec: float
    stage_times: dict[str, float]
    peak_vram_mib: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the worker's settings say to an engine that has a method `configure(options)`, which is called before all others."""

    fit: Literal["source", "pad", "crop"] = "source"  # OUTPUT_FIT
    batch_size: int | None = None  # frames a batch; None: what the card holds is measured
    cache_dir: Path | None = None  # a folder for what may be kept from job to job; None: nothing is kept
    cache_bytes: int = 0  # the most that it may hold
    unet: Path | None = None  # MUSETALK_UNET_MODEL_PATH and _CONFIG: files to take instead of those under MODELS_DIR
    unet_config: Path | None = None
    compile: Literal["first", "off"] = "first"  # COMPILE
    linears: Literal["bf16", "fp8"] = "bf16"  # FASTWAN_LINEARS
    decoder: Literal["full", "tiny"] = "full"  # FASTWAN_DECODER


class Engine(Protocol):
    """An engine may also have `missing(models)`, a line for each file of its weights that is not there;
    `configure(options)`; `is_lost()`, asked after an error: whether no job can be done before the process begins anew; and
    `prepares_ahead = True`, if its `prepare` may run beside another job's `generate`."""

    name: str

    def load(self, models: Path, device: str) -> None:
        """Bring the weights to the device, once a process life; they stay. device: "cuda:0" or "cpu"."""

    def warm_up(self) -> None:
        """Pay every first-job cost now (allocation, compilation, kernels), so that no job pays it."""

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Any:
        """All that can be done before the frames are made. Raises InvalidInput for bad input."""

    def generate(self, prepared: Any, output: Path, progress: Progress) -> Metrics:
        """Write the video to `output` (a name of this attempt alone). Raises InvalidInput, OutOfMemory, EngineFailed."""
