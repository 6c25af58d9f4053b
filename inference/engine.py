"""The engine interface: what a model family must implement to be run by `inference/generate.py`.

An engine is a class `Engine` with the methods below. It lives in the module `engine` of a package under `inference/engines/`;
the package name is the value of `ENGINE`. A value with a dot names any other module. To add an engine, add its package; nothing
else changes. An engine never touches the network, the queue or the environment: files in, one file out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

#: progress(phase, frames_done, frames_total): phase is "preparing", "inferring" or "encoding". Cheap: call it for every frame
#: or batch. Raises `errors.Cancelled` if the job is to stop, `errors.LostJob` if it is no longer ours; do not catch either.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files of one job, complete and checked to be media. Which of them are set depends on the engine."""

    video: Path | None = None  # a person's video, or a still image (musetalk, preview)
    audio: Path | None = None  # speech (musetalk, preview)
    image: Path | None = None  # first frame (fastwan)
    fields: dict[str, Any] = field(default_factory=dict)  # the job's other inputs: prompt, width, aspect_ratio …


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics of a finished job. `stage_times`: seconds in preprocessing, inference and postprocessing."""

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
    """The worker's settings for an engine, passed to its optional method `configure(options)` before any other call."""

    fit: Literal["source", "pad", "crop"] = "source"  # OUTPUT_FIT
    batch_size: int | None = None  # frames per batch; None: measured from what fits on the GPU
    cache_dir: Path | None = None  # a folder for what is cached between jobs; None: no cache
    cache_bytes: int = 0  # its size limit
    unet: Path | None = None  # MUSETALK_UNET_MODEL_PATH and _CONFIG: files to use instead of those under MODELS_DIR
    unet_config: Path | None = None
    compile: Literal["first", "off"] = "first"  # COMPILE
    linears: Literal["bf16", "fp8"] = "bf16"  # FASTWAN_LINEARS
    decoder: Literal["full", "tiny"] = "full"  # FASTWAN_DECODER


class Engine(Protocol):
    """An engine may also have `missing(models)`, one line for each missing file of its weights; `configure(options)`;
    `is_lost()`, called after an error: whether the process must restart before it can run another job; and
    `prepares_ahead = True`, if its `prepare` may run alongside another job's `generate`."""

    name: str

    def load(self, models: Path, device: str) -> None:
        """Load the weights onto the device, once per process; they stay there. device: "cuda:0" or "cpu"."""

    def warm_up(self) -> None:
        """Pay all first-job costs now (allocation, compilation, kernels), so that no job does."""

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Any:
        """Do everything that can be done before frames are generated. Raises InvalidInput for bad input."""

    def generate(self, prepared: Any, output: Path, progress: Progress) -> Metrics:
        """Write the video to `output` (a path unique to this attempt). Raises InvalidInput, OutOfMemory, EngineFailed."""
