"""MuseTalk as `inference/engine.py` wants it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from errors import EngineFailed, InvalidInput
from inference.engine import Inputs, Metrics, Options, Progress
from inference.engines.musetalk import build, cycle, models, params, sound, speech, stream
from inference.engines.musetalk.room import Room
from media import video, write
from media.still import Picture

log = logging.getLogger(__name__)

#: Without a card, this many pictures at once.
CPU_BATCH = 4
#: At least this much of a video is looked at, in seconds, so that the next, longer speech finds it known; then twice as much.
LEAST_S = 10


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that is ready for the networks."""

    job: stream.Job
    took_s: float
    cached: bool


class Engine:
    name = "musetalk"

    def __init__(self) -> None:
        self._options = Options()
        self._models: models.Models | None = None
        self._room = Room(CPU_BATCH)

    @staticmethod
    def missing(folder: Path) -> list[str]:
        """One line for each file of the weights that is not there."""
        return models.missing(folder)

    def configure(self, options: Options) -> None:
        """What the worker's settings say; before `load`."""
        self._options = options

    def load(self, models_dir: Path, device: str) -> None:
        """Halves on a card, 32 bits on a CPU. bfloat16 has 8 bits of precision, which shows in 8-bit pictures."""
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        self._models = models.load(models_dir, "1.5", device, dtype)

    @property
    def _loaded(self) -> models.Models:
        if self._models is None:
            raise EngineFailed("the engine is not loaded")
        return self._models

    def warm_up(self) -> None:
        self._room = Room(self._options.batch_size or CPU_BATCH)

    def prepare(self, inputs: Inputs, said: dict[str, Any], progress: Progress) -> Prepared:
        """All that does not depend on what is said. Raises InvalidInput for bad input."""
        began = time.monotonic()
        wanted = params.read(said, self._options.fit)
        if inputs.video is None or inputs.audio is None:
            lacking = "video_url" if inputs.video is None else "audio_url"
            raise InvalidInput(f"{lacking} is missing; musetalk needs a video and speech", stage="validation")
        clip = video.open_clip(inputs.video)
        loudness = sound.measure(inputs.audio)
        frames = speech.frames(loudness.samples, clip.rate)
        avatar = build.build(
            clip,
            _reach(frames, clip),
            self._loaded,
            wanted,
            self._room,
            lambda done, total: progress("preparing", done, total),
        )
        job = stream.Job(
            clip=clip,
            avatar=avatar,
            speech=inputs.audio,
            loudness=loudness,
            params=wanted,
            frames=cycle.length(frames, len(avatar), wanted.loop),
        )
        return Prepared(job=job, took_s=time.monotonic() - began, cached=False)

    def generate(self, prepared: Prepared, output: Path, progress: Progress) -> Metrics:
        """Write the video."""
        began = time.monotonic()
        job, busy = prepared.job, stream.Busy()
        ended = [began]
        written = write.write(
            output,
            _reported(
                stream.frames(job, self._loaded, self._room, busy, lambda: progress("inferring", 0, 1)), job, progress, ended
            ),
            rate=job.rate,
            speech=job.speech,
            pixel_aspect=job.clip.pixel_aspect,
        )
        return Metrics(
            frames=written.frames,
            fps=float(job.rate),
            width=written.width,
            height=written.height,
            duration_sec=written.duration_s,
            stage_times={
                "preprocessing": prepared.took_s,
                "inference": ended[0] - began,
                "postprocessing": time.monotonic() - ended[0],
            },
            extra={"encoder": written.encoder, "frames_without_face": busy.without_face},
        )


def _reach(frames: int, clip: video.Clip) -> int:
    """How many pictures of the video to look at for so many output frames."""
    reach = LEAST_S * clip.rate
    while reach < frames:
        reach *= 2
    return int(reach)


def _reported(frames: Iterator[Picture], job: stream.Job, progress: Progress, ended: list[float]) -> Iterator[Picture]:
    for done, frame in enumerate(frames, 1):
        yield frame
        progress("inferring", done, job.frames)
    ended[0] = time.monotonic()
    progress("encoding", job.frames, job.frames)
