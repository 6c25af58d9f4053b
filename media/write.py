"""Writes finished videos: H.264 and AAC in an MP4 with its index first, so that browsers can play it while it loads.

Colours are BT.709, limited range, both converted and tagged. H.264 in 4:2:0 requires even sides: for an odd side, the last row
or column is duplicated.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from errors import EngineFailed
from media import audio, colour, glimpse
from media.still import Picture

log = logging.getLogger(__name__)

#: The encoders to try, best first, with their options. NVENC needs a GPU that has it (data centre GPUs may not).
ENCODERS: dict[str, dict[str, str]] = {
    "h264_nvenc": {"preset": "p5", "tune": "hq", "rc": "vbr", "cq": "19", "b": "0", "profile": "high"},
    "libx264": {"preset": "veryfast", "crf": "18", "profile": "high"},
}

#: Encoders that failed mid-video, remembered until this process ends: the job is retried with another one.
_FAILED: set[str] = set()

#: A key frame at least this often, so that players can seek.
KEY_FRAME_S = 2

#: AAC bits per second and channel. At this rate FFmpeg's `fast` coder is nearer to the original than its default (42 dB instead
#: of 26 for our sample) in a third of the time.
AAC_BITS, AAC_CODER = 96_000, "fast"

#: How many frames are converted ahead of the encoder; they must not be modified before that.
CONVERTED_AHEAD = 3


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written; the size is even."""

    frames: int
    width: int
    height: int
    duration_s: float
    encoder: str


def write(
    path: Path, pictures: Iterable[Picture], *, rate: Fraction, speech: Path | None, pixel_aspect: Fraction = Fraction(1)
) -> Written:
    """Encode pictures (height, width, 3) uint8 RGB, all of one size, at `rate` with the sound of the file `speech`.

    A picture must not be modified after it is yielded. Exceptions from `pictures` propagate. Raises EngineFailed if encoding
    fails, OSError if writing does. Meanwhile the newest frame is kept next to the video, see `glimpse`.
    """
    coming = iter(pictures)
    first = next(coming, None)
    if first is None:
        raise EngineFailed("there is no frame to encode", stage="postprocessing")
    height, width = (side + side % 2 for side in first.shape[:2])
    container, video = _open(path, width, height, rate, pixel_aspect)
    encoder = video.codec_context.name
    try:
        with container:
            sound = _Sound(container, speech) if speech is not None else None
            frames = _write_frames(container, video, itertools.chain([first], coming), sound, path)
            if sound is not None:
                sound.finish((frames + 1) / rate)
    except FFmpegError as error:
        if isinstance(error, OSError | MemoryError):
            raise
        raise EngineFailed(f"the video cannot be encoded: {error.strerror}", stage="postprocessing", encoder=encoder) from error
    return Written(frames=frames, width=width, height=height, duration_s=float(frames / rate), encoder=encoder)


def choose_encoder(width: int, height: int, rate: Fraction) -> str:
    """The best encoder that can be opened for this size on this machine."""
    container, stream = _open(Path(os.devnull), width, height, rate, Fraction(1))
    with container:
        return str(stream.codec_context.name)


def usable() -> list[str]:
    """The encoders to try, without those that failed mid-video. The last one runs on the CPU and is always included."""
    *others, last = ENCODERS
    return [name for name in others if name not in _FAILED] + [last]


def _open(path: Path, width: int, height: int, rate: Fraction, pixel_aspect: Fraction) -> tuple[Any, Any]:
    """A new, empty output file and its video stream, with the first encoder that opens."""
    for name in usable():
        container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            stream = _add_video(container, name, width, height, rate, pixel_aspect)
            stream.codec_context.open()
        except (FFmpegError, ValueError):  # not in this build, no such GPU or no memory on it, or not for this size
            container.close()
            continue
        return container, stream
    raise EngineFailed(f"no H.264 encoder can be opened for {width}x{height}", stage="postprocessing")


def _add_video(container: Any, encoder: str, width: int, height: int, rate: Fraction, pixel_aspect: Fraction) -> Any:
    stream = container.add_stream(encoder, rate=rate, options=dict(ENCODERS[encoder]))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.gop_size = max(1, round(KEY_FRAME_S * rate))
    context.sample_aspect_ratio = pixel_aspect
    context.colorspace, context.color_range = colour.BT709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def encoded(stream: Any, frame: Any) -> Any:
    """The packets that are ready after this frame; None ends the stream. Raises EngineFailed; the next video then uses another
    encoder."""
    try:
        return stream.encode(frame)
    except FFmpegError as error:  # any kind: a GPU encoder says "no such file" for "no such device"
        encoder = stream.codec_context.name
        _FAILED.add(encoder)
        log.warning("%s failed in the middle of a video, the next video will use %s: %s", encoder, usable()[0], error)
        raise EngineFailed(f"the video cannot be encoded: {error.strerror}", stage="postprocessing", encoder=encoder) from error


def encoded_sound(stream: Any, frame: Any) -> Any:
    """The same for the audio, which has only one encoder."""
    try:
        return stream.encode(frame)
    except FFmpegError as error:
        raise EngineFailed(f"the audio cannot be encoded: {error.strerror}", stage="postprocessing") from error


def _write_frames(container: Any, stream: Any, pictures: Iterator[Picture], sound: _Sound | None, path: Path) -> int:
    time_base, frames = stream.codec_context.time_base, 0
    with closing(_in_colour(pictures, path)) as coming:
        for frame in coming:
            frame.pts, frame.time_base = frames, time_base
            container.mux(encoded(stream, frame))
            frames += 1
            if sound is not None:
                sound.write_until(frames * time_base)
    container.mux(encoded(stream, None))
    return frames


def _in_colour(pictures: Iterator[Picture], path: Path) -> Generator[Any, None, None]:
    """The frames to encode, converted in threads of their own: at 1080p one alone would be slower than the other steps."""
    coming, due = deque[Future[Any]](), 0.0
    with ThreadPoolExecutor(2, thread_name_prefix="colours") as converting:
        for picture in pictures:
            if time.monotonic() >= due:
                converting.submit(glimpse.keep, picture, path)
                due = time.monotonic() + glimpse.EVERY_S
            coming.append(converting.submit(lambda shown: colour.from_rgb(_even(shown)), picture))
            if len(coming) > CONVERTED_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _even(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)


class _Sound:
    """The audio track, written incrementally along with the frames."""

    def __init__(self, container: Any, speech: Path) -> None:
        self._container = container
        self._frames = audio.track(speech)
        layout = "mono" if audio.channels(speech) == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=audio.TRACK_RATE_HZ, layout=layout, options={"aac_coder": AAC_CODER})
        self._stream.bit_rate = AAC_BITS * (1 if layout == "mono" else 2)
        self._samples = 0

    def write_until(self, time_s: Fraction) -> None:
        while self._samples < time_s * audio.TRACK_RATE_HZ:
            frame = next(self._frames, None)
            if frame is None:
                return
            frame.pts, frame.time_base = self._samples, Fraction(1, audio.TRACK_RATE_HZ)
            self._samples += frame.samples
            self._container.mux(encoded_sound(self._stream, frame))

    def finish(self, time_s: Fraction) -> None:
        """Write the remaining audio up to time_s, one frame after the last: the part too short for a whole frame, but not the
        rest of a speech that was cut. Then flush the encoder."""
        self.write_until(time_s)
        self._container.mux(encoded_sound(self._stream, None))
