"""Small real media for tests: a moving pattern as MP4 and a tone as WAV, each different by its number."""

from __future__ import annotations

import io
import wave

import av
import numpy as np


def video(number: int = 0, frames: int = 12, size: int = 64, rate: int = 25) -> bytes:
    """An H.264 MP4 of a gradient that moves; `number` changes the pixels."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "30"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        ramp = np.arange(size, dtype=np.uint8)
        for index in range(frames):
            picture = np.stack([np.add.outer(ramp, ramp + 4 * index + number)] * 3, axis=-1).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def speech(number: int = 0, seconds: float = 0.5, rate_hz: int = 16000) -> bytes:
    """A mono 16-bit WAV: a tone whose pitch is chosen by `number`."""
    file = io.BytesIO()
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    samples = (8000 * np.sin(2 * np.pi * (200 + number) * times)).astype("<i2")
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(samples.tobytes())
    return file.getvalue()
