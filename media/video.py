"""Reads frames from a video: upright, at a constant rate, in bounded memory, backwards too.

A variable frame rate is resampled to a constant one by timestamps: each tick yields the frame that is shown at that time. The
rate is the video's average, snapped to a standard rate if it is close to one.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
from av.video.reformatter import Interpolation, VideoReformatter

from errors import InvalidInput
from media import colour, hdr, source, still
from media.still import Picture
from media.turn import Turn
from media.turn import of as turn_of

#: The standard rates; an average within a hundredth of one is snapped to it, since phones' clocks drift.
USUAL_RATES = tuple(Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)) + tuple(
    Fraction(rate * 1000, 1001) for rate in (24, 30, 60, 120)
)
MIN_RATE, MAX_RATE = Fraction(1), Fraction(240)

#: The frame rate for a still image, and its maximum side: what a browser can play.
STILL_RATE = Fraction(25)
STILL_SIDE_PX = 1920

#: The memory limit for decoded frames while a video is read backwards.
KEPT_BYTES = 256 << 20

#: How far before a wanted frame decoding starts, in seconds; each value is tried if the previous one failed; None: the start.
FARTHER_S = (0.0, 2.0, 10.0, None)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video or still image to read frames from; sizes are those of the upright frames."""

    path: Path
    width: int
    height: int
    rate: Fraction
    pixel_aspect: Fraction  # width of a pixel to its height
    frames_about: int  # the estimated number of frames, for progress; only reading them all gives the exact number
    is_still: bool = False
    turn: Turn = field(default_factory=Turn)
    start_s: Fraction = Fraction(0)  # the first frame's time by the stream's clock


def open_clip(path: Path) -> Clip:
    """The clip for `pictures` and `there_and_back`. Raises InvalidInput if the file has no frames."""
    with source.open_input(path) as container:
        stream = source.video_stream(container)
        if stream is None and source.audio_stream(container) is None:
            raise InvalidInput("the file has neither video nor audio: its index is damaged")
        if stream is None:
            raise InvalidInput("this is audio only, not a video")
        source.check_decodable(stream)
        if container.format.name.endswith("_pipe"):
            return _still_clip(path)
        first = next(source.decode(container, stream), None)
        if first is None:
            raise InvalidInput("the video has no decodable frame (0 frames)")
        turn, rate = turn_of(first), constant_rate(stream)
        width, height = turn.size(first.width, first.height)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        length_s = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, 1_000_000)
        return Clip(
            path=path,
            width=width,
            height=height,
            rate=rate,
            pixel_aspect=1 / aspect if turn.transpose else aspect,
            frames_about=max(1, round(length_s * rate)),
            turn=turn,
            start_s=Fraction(0) if first.pts is None else Fraction(first.pts * first.time_base),
        )


def constant_rate(stream: Any) -> Fraction:
    """The frames per second at which a video stream is read."""
    # for a single frame some containers have no rate, and FFmpeg's guess counts fields of H.264's clock: twice too many
    average = stream.average_rate or stream.codec_context.framerate or stream.guessed_rate
    if not average:
        return STILL_RATE
    if average == stream.base_rate and MIN_RATE <= average <= MAX_RATE:
        return Fraction(average)
    average = min(max(Fraction(average), MIN_RATE), MAX_RATE)
    nearest = min(USUAL_RATES, key=lambda rate: abs(rate - average))
    return nearest if abs(nearest - average) <= average / 100 else average.limit_denominator(1001)


def pictures(clip: Clip) -> Iterator[Picture]:
    """All frames in order, once: (height, width, 3) uint8 RGB."""
    if clip.is_still:
        yield _still(clip)
        return
    to_picture = _Converter(clip)
    for _, frame in _at_constant_rate(clip, _decoded(clip, None)):
        yield to_picture(frame)


def there_and_back(
    clip: Clip, count: int, while_decoding: Callable[[], None], kept_bytes: int = KEPT_BYTES
) -> Iterator[tuple[int, Picture]]:
    """`count` frames, alternating forwards and backwards, each with its index: 0 … n-1, n-1 … 0, 0 …

    while_decoding is called for every decoded frame, of which there may be hundreds per returned frame on the way back;
    exceptions from it propagate. kept_bytes limits the memory of decoded frames kept for the way back.
    """
    if clip.is_still:
        yield from itertools.repeat((0, _still(clip)), count)
        return
    to_picture = _Converter(clip)
    for number, frame in itertools.islice(_endless(clip, while_decoding, kept_bytes), count):
        yield number, to_picture(frame)


def _endless(clip: Clip, while_decoding: Callable[[], None], kept_bytes: int) -> Iterator[tuple[int, Any]]:
    while True:
        kept: deque[tuple[int, Any]] = deque()
        held_bytes = 0
        for number, frame in _at_constant_rate(clip, _decoded(clip, None)):
            kept.append((number, frame))
            held_bytes += _size_bytes(frame)
            while held_bytes > kept_bytes and len(kept) > 1:
                held_bytes -= _size_bytes(kept.popleft()[1])
            yield number, frame
        if not kept:
            raise InvalidInput("the video has no decodable frame (0 frames)")
        if kept[0][0] == 0:  # all of it fits into memory
            while True:
                yield from reversed(kept)
                yield from kept
        at_once, before = len(kept), kept[0][0]
        yield from reversed(kept)
        kept.clear()
        while before > 0:
            yield from reversed(_between(clip, max(0, before - at_once), before, while_decoding))
            before = max(0, before - at_once)


def _size_bytes(frame: Any) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


def _between(clip: Clip, first: int, stop: int, while_decoding: Callable[[], None]) -> list[tuple[int, Any]]:
    """Frames first … stop-1, decoded from a key frame before them."""
    at_s = clip.start_s + first / clip.rate
    for farther_s in FARTHER_S:
        start_s = None if farther_s is None else max(0.0, float(at_s) - farther_s)
        wanted = []
        for number, frame in _at_constant_rate(clip, _decoded(clip, start_s)):
            while_decoding()
            if number >= stop:
                break
            if number >= first:
                wanted.append((number, frame))
        if len(wanted) == stop - first:
            return wanted
    raise InvalidInput(f"the video cannot be read backwards at {float(at_s):.2f} s: it is damaged there")


def _decoded(clip: Clip, start_s: float | None) -> Iterator[Any]:
    """Decoded frames, starting at the key frame at or before start_s; None: at the start."""
    with source.open_input(clip.path) as container:
        stream = source.video_stream(container)
        stream.thread_type = "AUTO"
        if start_s is None:
            yield from source.decode(container, stream)
        elif source.seek(container, stream, start_s):
            from_key_frame = itertools.dropwhile(lambda frame: not frame.key_frame, source.decode(container, stream))
            yield from itertools.takewhile(lambda frame: frame.pts is not None, from_key_frame)


def _at_constant_rate(clip: Clip, frames: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """Each frame as many times as it is shown at clip.rate, numbered from the clip's first; zero-length frames are dropped."""
    number, shown = 0, None
    for count, frame in enumerate(frames):
        begins = (
            count
            if frame.pts is None
            else math.floor((frame.pts * frame.time_base - clip.start_s) * clip.rate + Fraction(1, 2))
        )
        if shown is None:
            number = begins
        while shown is not None and number < begins:
            yield number, shown
            number += 1
        shown = frame
    if shown is not None:
        length_s = shown.duration * shown.time_base if shown.duration else 0
        for extra in range(max(1, math.floor(length_s * clip.rate + Fraction(1, 2)))):
            yield number + extra, shown


class _Converter:
    """Converts decoded frames to RGB; reuses the scaler's tables between frames."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._size = clip.turn.size(clip.width, clip.height)  # as stored: a turn is its own inverse in size
        self._scaler = VideoReformatter()

    def __call__(self, frame: Any) -> Picture:
        if hdr.is_high(frame):
            pixels = hdr.shown(self._scaled(frame, "rgb48le"), frame.color_trc, frame.color_primaries)
        elif (frame.width, frame.height) == self._size and colour.is_plain(frame):
            pixels = colour.to_rgb(frame)
        else:
            pixels = self._scaled(frame, "rgb24")
        return self._clip.turn.apply(pixels)

    def _scaled(self, frame: Any, layout: str) -> Any:
        return self._scaler.reformat(
            frame,
            *self._size,
            format=layout,
            src_colorspace=colour.tag_of(frame),
            interpolation=Interpolation.BILINEAR,  # others are three times slower here
            threads=1,
        ).to_ndarray()


def _still_clip(path: Path) -> Clip:
    height, width = _fit(still.read(path)).shape[:2]
    return Clip(path=path, width=width, height=height, rate=STILL_RATE, pixel_aspect=Fraction(1), frames_about=1, is_still=True)


def _still(clip: Clip) -> Picture:
    return _fit(still.read(clip.path))


def _fit(image: Picture) -> Picture:
    height, width = image.shape[:2]
    scale = STILL_SIDE_PX / max(height, width)
    if scale >= 1:
        return image
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]
