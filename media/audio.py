"""Reads speech from any file with audio: as samples for a model, and as frames for the output's audio track.

Everything is read in chunks, so that an hour takes no more memory than a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from media import source

#: The sample rate of every audio track that we write.
TRACK_RATE_HZ = 48_000


def mono(path: Path, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """The audio in chunks (n,) of float32, -1 to 1, at rate_hz: the mean of the channels of `track`.

    FFmpeg's own downmix of two channels would be 1.4 times as loud as one, and clipped at its peaks.
    Raises InvalidInput if the file has no audio.
    """
    for frame in _resampled(path, rate_hz):
        yield frame.to_ndarray().mean(axis=0)


def track(path: Path) -> Iterator[Any]:
    """The audio as `av` frames of 32-bit floats, -1 to 1, at TRACK_RATE_HZ: mono stays mono, anything else becomes stereo."""
    yield from _resampled(path, TRACK_RATE_HZ)


def channels(path: Path) -> int:
    """The number of audio channels in the file."""
    with source.open_input(path) as container:
        return int(_stream(container).codec_context.channels)


def _stream(container: Any) -> Any:
    stream = source.audio_stream(container)
    if stream is None:
        raise InvalidInput("the file has no audio")
    source.check_decodable(stream)
    return stream


def _resampled(path: Path, rate_hz: int) -> Iterator[Any]:
    with source.open_input(path) as container:
        stream = _stream(container)
        resampler: Any = None
        heard = None
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        for frame in source.decode(container, stream):
            frame.pts = None  # gaps in the timestamps are not gaps in the speech
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != heard:  # some streams change format midway
                if resampler is not None:
                    yield from _filled(resampler.resample(None))
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
                heard = kind
            yield from _filled(resampler.resample(frame))
        if resampler is None:
            raise InvalidInput("the audio has no decodable samples")
        yield from _filled(resampler.resample(None))


def _filled(frames: list[Any]) -> Iterator[Any]:
    return (_sane(frame) for frame in frames if frame is not None and frame.samples)


def _sane(frame: Any) -> Any:
    """The frame with all samples clipped to -1 … 1: several loud channels can add up to more, and a float file may contain
    anything, including NaN, which no encoder accepts."""
    samples = frame.to_ndarray()
    if np.abs(samples).max() <= 1:  # false for NaN
        return frame
    clipped = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1)
    sane: Any = av.AudioFrame.from_ndarray(clipped, format="fltp", layout=frame.layout.name)
    sane.sample_rate = frame.sample_rate
    return sane
