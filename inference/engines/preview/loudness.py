"""How far the mouth is open at each moment, estimated from the loudness of the speech."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from media import audio

RATE_HZ = 16_000
#: One level per hundredth of a second.
HOP_S = 0.01
HOP = int(RATE_HZ * HOP_S)

#: Below this the sound counts as silence, in dB of full scale.
SILENCE_DB = -55.0
#: The mouth opens over at least this range in dB below the loudest parts.
RANGE_DB = 22.0
#: The smoothing time, because a jaw has mass: the sigma of a Gaussian, in seconds.
SMOOTH_S = 0.045


def levels_db(speech: Path, each_chunk: Callable[[], None]) -> NDArray[np.float32]:
    """The loudness of the file's audio, (n,) in dB of full scale, one value per HOP_S; the last hop may be partly empty."""
    levels = array("f")  # an hour has 360 000
    rest = np.zeros(0, np.float32)
    for chunk in audio.mono(speech, RATE_HZ):
        each_chunk()
        rest = np.concatenate([rest, chunk])
        whole = len(rest) // HOP * HOP
        levels.frombytes(_db(rest[:whole].reshape(-1, HOP)).tobytes())
        rest = rest[whole:]
    if len(rest):
        levels.frombytes(_db(np.pad(rest, (0, HOP - len(rest))).reshape(1, HOP)).tobytes())
    return np.frombuffer(levels, dtype=np.float32)


def _db(hops: NDArray[np.float32]) -> NDArray[np.float32]:
    power = np.mean(np.square(hops), axis=1)
    return np.asarray(10 * np.log10(power + 1e-10), dtype=np.float32)


def openings(levels: NDArray[np.float32], frames: int, rate: float) -> NDArray[np.float32]:
    """How far the mouth is open in each frame, 0 to 1, relative to the speech's own loudest parts."""
    loud = levels[levels > SILENCE_DB]
    if not len(loud):
        return np.zeros(frames, np.float32)
    top = float(np.percentile(loud, 92))
    bottom = max(SILENCE_DB, min(float(np.percentile(loud, 15)), top - RANGE_DB))
    opened = np.clip((levels - bottom) / max(top - bottom, 1.0), 0, 1) ** 1.3
    hop_times = (np.arange(len(levels)) + 0.5) * HOP_S
    window = _window(SMOOTH_S)
    smooth = np.convolve(np.pad(opened, len(window) // 2), window, mode="valid")
    return np.asarray(np.interp((np.arange(frames) + 0.5) / rate, hop_times, smooth), dtype=np.float32)


def _window(sigma_s: float) -> NDArray[np.float64]:
    reach = int(3 * sigma_s / HOP_S)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) * HOP_S / sigma_s) ** 2)
    return np.asarray(window / window.sum())
