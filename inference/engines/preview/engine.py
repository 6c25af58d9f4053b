"""The preview engine's implementation of the interface in `inference/engine.py`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from inference.engine import Inputs, Metrics, Progress
from inference.engines.preview import face, lips, loudness, mouth
from media import video, write
from media.still import Picture

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything about a job that is known before its frames are generated."""

    clip: video.Clip
    speech: Path
    poses: NDArray[np.float64]  # see face.Pose: one row a picture of the clip; NaN where there is no face
    lips: lips.Lips
    openings: NDArray[np.float32]  # how far the mouth is open in each frame of the output, 0 to 1
    took_s: float


class Engine:
    name = "preview"

    def load(self, models: Path, device: str) -> None:
        """Nothing to load: the face detector comes with OpenCV."""

    def warm_up(self) -> None:
        """Load the face detector's data, so that a broken installation shows before the first job."""
        face.Finder()

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Prepared:
        """Find the face in every source frame and the loudness at every output frame. Raises InvalidInput if there is no
        face."""
        began = time.monotonic()
        if params:
            raise InvalidInput(
                f"params: {', '.join(sorted(params))} unknown; the preview engine takes no parameters", stage="validation"
            )
        if inputs.video is None or inputs.audio is None:
            missing = "video_url" if inputs.video is None else "audio_url"
            raise InvalidInput(f"{missing} is missing; the preview engine needs a video and speech", stage="validation")
        clip = video.open_clip(inputs.video)
        poses, patches = self._look(clip, progress)
        levels = loudness.levels_db(inputs.audio, lambda: progress("preparing", len(poses), len(poses)))
        frames = max(1, math.ceil(len(levels) * loudness.HOP_S * clip.rate - 1e-6))
        return Prepared(
            clip=clip,
            speech=inputs.audio,
            poses=poses,
            lips=lips.find(patches),
            openings=loudness.openings(levels, frames, float(clip.rate)),
            took_s=time.monotonic() - began,
        )

    def _look(self, clip: video.Clip, progress: Progress) -> tuple[NDArray[np.float64], list[face.Patch]]:
        finder = face.Finder()
        for number, picture in enumerate(video.pictures(clip)):
            finder.look(picture)
            progress("preparing", number, max(clip.frames_about, number + 1))
        if not finder.seen:
            raise InvalidInput(
                f"no face found in the video: searched {finder.looks} of {finder.pictures} frames "
                f"from 0.00 s to {float((finder.pictures - 1) / clip.rate):.2f} s; a face must look into the camera "
                f"and be at least {face.MIN_PX} pixels wide",
                stage="preprocessing",
            )
        return finder.poses(float(clip.rate)), finder.patches

    def generate(self, prepared: Prepared, output: Path, progress: Progress) -> Metrics:
        """Write the video: the clip played back and forth to the speech, with a moving mouth."""
        began = time.monotonic()
        clock = {"inference": 0.0}
        written = write.write(
            output,
            _frames(prepared, progress, clock),
            rate=prepared.clip.rate,
            speech=prepared.speech,
            pixel_aspect=prepared.clip.pixel_aspect,
        )
        took_s = time.monotonic() - began
        log.info(
            "wrote %d frames of %dx%d with %s in %.1f s", written.frames, written.width, written.height, written.encoder, took_s
        )
        return Metrics(
            frames=written.frames,
            fps=float(prepared.clip.rate),
            width=written.width,
            height=written.height,
            duration_sec=written.duration_s,
            stage_times={
                "preprocessing": prepared.took_s,
                "inference": clock["inference"],
                "postprocessing": took_s - clock["inference"],
            },
            extra={"encoder": written.encoder, "frames_without_face": int(np.isnan(prepared.poses[:, 0]).sum())},
        )


def _frames(prepared: Prepared, progress: Progress, clock: dict[str, float]) -> Iterator[Picture]:
    """The frames of the output; clock["inference"] grows by the seconds that making them took."""
    total = len(prepared.openings)
    done = 0

    def report() -> None:
        progress("inferring", done, total)

    since = time.monotonic()
    for number, picture in video.there_and_back(prepared.clip, total, report):
        pose = prepared.poses[min(number, len(prepared.poses) - 1)]
        made = mouth.open_mouth(picture, pose, prepared.lips, float(prepared.openings[done]))
        done += 1
        report()
        clock["inference"] += time.monotonic() - since
        yield made
        since = time.monotonic()
    progress("encoding", total, total)
