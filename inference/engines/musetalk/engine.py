"""MuseTalk's implementation of the interface in `inference/engine.py`."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from errors import EngineFailed, InvalidInput
from inference.engine import Inputs, Metrics, Options, Progress
from inference.engines import card, identity
from inference.engines.fused import Fused
from inference.engines.musetalk import (
    build,
    cycle,
    layout,
    models,
    mouths,
    params,
    shape,
    sound,
    speech,
    stream,
    trial,
)
from inference.engines.musetalk.avatar import Avatar
from inference.engines.musetalk.cache import Cache, key
from inference.engines.musetalk.room import Room
from media import video, write
from media.still import Picture

log = logging.getLogger(__name__)

#: At least this many seconds of a video are processed, so that a longer speech finds it cached next time; then twice as many.
MIN_S = 10
MIB = 1 << 20
#: The first compute capability for which torch's builds for CUDA 13 have kernels.
MIN_CAPABILITY = (7, 5)
#: The minimum batch for the face networks on a GPU: kernels for fewer frames finish before the next ones are launched.
MIN_LOOKED_AT = 8
#: The networks that an avatar depends on. The UNet is not among them.
SHAPING = ("vae", "pose", "detector", "parser")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that is ready to generate."""

    job: stream.Job
    shape: shape.Shape
    took_s: float
    cached: bool


class Engine:
    """`prepare` may run in another thread while `generate` runs; it uses its own CUDA stream."""

    name = "musetalk"
    prepares_ahead = True
    is_lost = staticmethod(card.is_lost)

    def __init__(self) -> None:
        self._options = Options()
        self._cache = Cache(None, 0)
        self._models: dict[str, models.Models] = {}  # by version
        self._speak: dict[str, mouths.Speak] = {}
        self._weights = ""
        self._speaking, self._looking = Room(1), Room(1)
        self._beside: torch.cuda.Stream | None = None

    @staticmethod
    def missing(folder: Path) -> list[str]:
        """One line for each missing file of the weights; version 1.0 alone is enough."""
        lines = models.missing(folder)
        return lines if lines and models.missing(folder, "1.0") else []

    def configure(self, options: Options) -> None:
        """Apply the worker's settings; called before `missing` and `load`."""
        self._options = options
        if options.unet or options.unet_config:
            layout.look_elsewhere("unet-1.5", options.unet, options.unet_config)

    def load(self, models_dir: Path, device: str) -> None:
        """Load the networks of each installed version, in float16 on a GPU, else in float32.

        Not bfloat16: its 8 bits of precision show as banding in 8-bit frames; the published live script uses float16 too.
        """
        on_card = device.startswith("cuda")
        if on_card:
            card.refuse_older(*card.found(device), MIN_CAPABILITY, "is too old for this torch")
        dtype = torch.float16 if on_card else torch.float32
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # waiting threads spin, and others need cores
        versions = [version for version in ("1.5", "1.0") if not models.missing(models_dir, version)] or ["1.5"]
        fused = Fused(self._options.compile) if on_card else None
        first = models.load(models_dir, versions[0], device, dtype, fused=fused)
        others = {version: models.of_version(first, models_dir, version) for version in versions[1:]}
        shaping = identity.of((name, layout.find(models_dir, name).weights) for name in SHAPING)
        self.use({versions[0]: first, **others}, f"{shaping} {dtype}")

    def use(self, found: dict[str, models.Models], weights: str = "") -> None:
        """Use these loaded networks, by version; `weights` identifies them. For benchmarks and tests."""
        self._models, self._weights = found, weights
        device = next(iter(found.values())).device
        # one for all jobs: memory cached for a stream can only be reused on that stream until the GPU is full
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._cache = Cache(self._options.cache_dir, self._options.cache_bytes)

    def warm_up(self) -> None:
        """Find the batch size, capture the CUDA graphs, and run a dummy job through everything, with cuDNN's autotuner on, and
        compiling what is used.

        Afterwards nothing is compiled, the autotuner is off and new shapes use cuDNN's heuristics. Otherwise it would search
        for every new shape, in every thread again, for seconds in which it empties torch's memory cache repeatedly while
        another job is on the GPU.
        """
        torch.backends.cudnn.benchmark = True
        try:
            self._warm_up()
        finally:
            torch.backends.cudnn.benchmark = False
            for found in self._models.values():
                if found.fused is not None:
                    found.fused.settle()

    def _warm_up(self) -> None:
        loaded = next(iter(self._models.values()))
        on_card = loaded.device.type == "cuda"
        size = self._options.batch_size or mouths.measured(loaded)
        least = MIN_LOOKED_AT if on_card and self._options.batch_size is None else 1
        self._speaking, self._looking = Room(size), Room(max(least, size // 2))
        studio = mouths.Studio.on(loaded.device) if on_card else None
        self._speak = {version: mouths.recorded(found, size, studio) for version, found in self._models.items()}
        if on_card:
            trial.run(loaded, self._speak[loaded.version], self._looking, self._speaking)

    def prepare(self, inputs: Inputs, said: dict[str, Any], progress: Progress) -> Prepared:
        """Everything that does not depend on the speech; the avatar comes from the cache if it is there. Raises
        InvalidInput."""
        began = time.monotonic()
        wanted = params.read(said, self._options.fit)
        loaded = self._of_version(wanted.version)
        if inputs.video is None or inputs.audio is None:
            lacking = "video_url" if inputs.video is None else "audio_url"
            raise InvalidInput(f"{lacking} is missing; musetalk needs a video and speech", stage="validation")
        clip = video.open_clip(inputs.video)
        output = shape.of(clip, inputs.fields, wanted.fit)
        loudness = sound.measure(inputs.audio, lambda: progress("preparing", 0, 1))
        frames = speech.frames(loudness.samples, clip.rate)
        name = key(inputs.video, wanted, self._weights)
        avatar = self._cache.get(name, frames)
        cached = avatar is not None
        if avatar is None:
            avatar = self._built(clip, frames, loaded, wanted, progress)
            self._cache.put(name, avatar)
        if wanted.no_face == "fail":
            build.check_moves(avatar, frames)
        spoken = frames if clip.is_still else cycle.length(frames, len(avatar), wanted.loop)  # a photo never ends
        job = stream.Job(
            clip=clip,
            avatar=avatar,
            speech=inputs.audio,
            loudness=loudness,
            params=wanted,
            spoken=spoken,
            frames=max(spoken, _rest(clip, avatar)) if wanted.tail == "keep" else spoken,
        )
        return Prepared(job=job, shape=output, took_s=time.monotonic() - began, cached=cached)

    def _built(self, clip: video.Clip, frames: int, loaded: models.Models, wanted: params.Params, progress: Progress) -> Avatar:
        beside = torch.cuda.stream(self._beside) if self._beside is not None else contextlib.nullcontext()
        with self._looking.attempt(), beside:
            return build.build(
                clip,
                _reach(frames, clip),
                loaded,
                wanted,
                self._looking,
                lambda done, total: progress("preparing", done, total),
            )

    def generate(self, prepared: Prepared, output: Path, progress: Progress) -> Metrics:
        """Write the video: the source frames with new mouths, and the speech as the sound."""
        began = time.monotonic()
        job, busy = prepared.job, stream.Busy()
        loaded = self._of_version(job.params.version)
        on_card = loaded.device.type == "cuda"
        if on_card:
            torch.cuda.reset_peak_memory_stats(loaded.device)
        made = stream.frames(
            job, loaded, self._speak[loaded.version], self._speaking, busy, _waiting(progress, busy, job.frames)
        )
        shaped = _shaped(made, prepared.shape, progress, busy, job.frames)
        with self._speaking.attempt(), contextlib.closing(shaped):  # else a kept error would keep the threads alive
            written = write.write(
                output,
                shaped,
                rate=job.rate,
                speech=job.speech,
                pixel_aspect=prepared.shape.pixel_aspect,
            )
        made_s = busy.ended - began
        peak = torch.cuda.max_memory_reserved(loaded.device) / MIB if on_card else None
        log.info("wrote %d frames of %dx%d in %.1f s", written.frames, written.width, written.height, time.monotonic() - began)
        return Metrics(
            frames=written.frames,
            fps=float(job.rate),
            width=written.width,
            height=written.height,
            duration_sec=written.duration_s,
            stage_times={
                "preprocessing": prepared.took_s,
                "inference": made_s,
                "postprocessing": time.monotonic() - began - made_s,
            },
            peak_vram_mib=None if peak is None else round(peak, 1),
            extra={
                "encoder": written.encoder,
                "frames_without_face": busy.without_face,
                "avatar_cache": "hit" if prepared.cached else "miss",
                "batch_size": self._speaking.size,
                "first_frame_s": round(busy.first_s - began, 3),
                "busy_s": {name: round(seconds, 3) for name, seconds in busy.steps().items()},
            },
        )

    def _of_version(self, version: str) -> models.Models:
        if version not in self._models:
            there = ", ".join(self._models) or "none"
            raise EngineFailed(
                f"the weights of MuseTalk {version} are not installed here; installed: {there}", stage="validation"
            )
        return self._models[version]


def _reach(frames: int, clip: video.Clip) -> int:
    """How many frames of the video to process for that many output frames."""
    reach = MIN_S * clip.rate
    while reach < frames:
        reach *= 2
    return int(reach)


def _rest(clip: video.Clip, avatar: Avatar) -> int:
    """How many frames the video has: exact if the avatar has them all, otherwise about."""
    return len(avatar) if avatar.whole else clip.frames_about


def _waiting(progress: Progress, busy: stream.Busy, total: int) -> Callable[[], None]:
    return lambda: progress("inferring", min(busy.frames, total), total)


def _shaped(
    frames: Generator[Picture, None, None], output: shape.Shape, progress: Progress, busy: stream.Busy, total: int
) -> Generator[Picture, None, None]:
    """The frames in the output's shape; counts them and reports progress."""
    with contextlib.closing(frames):
        for frame in frames:
            busy.frames += 1
            yield output.apply(frame)
            progress("inferring", min(busy.frames, total), total)
    busy.ended = time.monotonic()
    progress("encoding", total, total)
