"""Builds small odd media files, whose every frame carries its number as a row of black and white bars."""

from __future__ import annotations

import math
import struct
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: How many bars a frame's number has: 8 bits.
BITS = 8


def numbered(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture (height, width, 3) RGB that shows a number; its left half is reddish, so that turns can be told."""
    picture = np.full((height, width, 3), 128, np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        picture[height // 4 : 3 * height // 4, bit * bar : (bit + 1) * bar] = 230 if number >> bit & 1 else 20
    picture[: height // 8] = (220, 30, 30)
    return picture


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number that a picture shows."""
    height, width = picture.shape[:2]
    bar = width // BITS
    middles = [picture[height // 2, bit * bar + bar // 2].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(middles) if level > 128)


def movie(
    path: Path,
    *,
    frames: int = 10,
    size: tuple[int, int] = (64, 64),
    rate: Fraction | int = 25,
    times_s: list[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    **options: str,
) -> Path:
    """A video of numbered frames; times_s: when each is shown, for a rate that varies."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate), options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number % 256, *size), format="rgb24")
            if times_s is not None:
                frame.pts, frame.time_base = round(times_s[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a, b, c, d into the display matrix of an MP4's picture track, as a camera that was held otherwise does."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    at = start + 4 + 20 + 8 + 8  # flags; times, track, duration; reserved; layer, group, volume
    a, b, c, d = (value << 16 for value in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)
    return path


def sound(
    path: Path,
    *,
    seconds: float = 1.0,
    rate_hz: int = 16000,
    layout: str = "mono",
    codec: str = "pcm_s16le",
    hz: float = 440.0,
    loud: tuple[int, ...] | None = None,
    title: str = "a tone",
) -> Path:
    """A tone in the channels numbered by `loud` (default: all), half as loud as can be."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
        count = stream.codec_context.layout.nb_channels
        tone = 0.5 * np.sin(2 * math.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
        samples = np.stack([tone if loud is None or channel in loud else 0 * tone for channel in range(count)])
        for start in range(0, samples.shape[1], 4096):
            part = np.ascontiguousarray(samples[:, start : start + 4096], dtype=np.float32)
            frame: Any = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def samples(path: Path, values: NDArray[np.floating]) -> Path:
    """A 16 kHz mono WAV of these samples, -1 to 1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((values * 32_767).astype("<i2").tobytes())
    return path


def floats(path: Path, values: NDArray[np.floating], channels: int = 1) -> Path:
    """A 16 kHz WAV of 32-bit floats, which may be anything; of several channels one sample after the other."""
    data = values.astype("<f4").tobytes()
    shape = struct.pack("<HHIIHH", 3, channels, 16_000, 16_000 * 4 * channels, 4 * channels, 32)
    chunks = b"fmt " + struct.pack("<I", len(shape)) + shape + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path
