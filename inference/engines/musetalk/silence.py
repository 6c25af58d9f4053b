"""Finds the silent parts of a speech, so that the mouth stays still there.

In a pause the encoder picks up noise, and the UNet moves the mouth to it. A frame whose whole window is silent is therefore
generated from the window of digital silence (`speech.silence`), the same for every such frame: the model closes the mouth, on
the person's own picture, and it stays closed. Off in parity.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: One level per hundredth of a second.
LEVELS_HZ = 100
HOP = 16_000 // LEVELS_HZ

#: A frame's audio window in seconds around its time, see speech.py.
BEFORE_S, AFTER_S = 0.08, 0.12

#: The silence threshold: this far below the speech's louder parts, in dB, within these limits in dB of full scale.
BELOW_DB, LOUDEST_DB, QUIETEST_DB = 35.0, -40.0, -55.0
#: A shorter silence is a pause within a word, which the model handles itself.
MIN_S = 0.2


@dataclass(frozen=True)
class Loudness:
    """The loudness of a whole speech. levels: (n,) float32, dB of full scale, LEVELS_HZ per second; an hour has 360,000."""

    samples: int
    levels: NDArray[np.float32]


def measure(samples: Iterable[NDArray[np.float32]]) -> Loudness:
    """The loudness of 16 kHz mono in chunks of any length, read once."""
    levels, rest, count = array("f"), np.zeros(0, np.float32), 0
    for chunk in samples:
        count += len(chunk)
        rest = np.concatenate([rest, chunk])
        whole = len(rest) // HOP * HOP
        levels.frombytes(_db(rest[:whole].reshape(-1, HOP)).tobytes())
        rest = rest[whole:]
    if len(rest):
        levels.frombytes(_db(rest.reshape(1, -1)).tobytes())
    return Loudness(count, np.frombuffer(levels.tobytes(), dtype=np.float32))


def quiet(loudness: Loudness, frames: int, rate: Fraction) -> NDArray[np.bool_]:
    """(frames,): which output frames have only silence in their window. Beyond both ends of the speech is silent too."""
    levels = loudness.levels
    if not len(levels):
        return np.ones(frames, np.bool_)
    limit = min(max(float(np.percentile(levels, 95)) - BELOW_DB, QUIETEST_DB), LOUDEST_DB)
    heard_before = np.concatenate([[0], np.cumsum(levels >= limit)])  # loud levels before each
    moments = np.arange(frames) * LEVELS_HZ * rate.denominator / rate.numerator
    first = np.clip(np.floor(moments - BEFORE_S * LEVELS_HZ).astype(np.int64), 0, len(levels))
    stop = np.clip(np.ceil(moments + AFTER_S * LEVELS_HZ).astype(np.int64), 0, len(levels))
    return _long(heard_before[stop] == heard_before[first], round(MIN_S * rate))


def _long(marks: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Only the runs of marks that have at least this length."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    kept = np.zeros_like(marks)
    for start, stop in change.reshape(-1, 2):
        kept[start:stop] = stop - start >= least
    return kept


def _db(hops: NDArray[np.float32]) -> NDArray[np.float32]:
    power = np.mean(np.square(hops, dtype=np.float32), axis=1)
    return np.asarray(10 * np.log10(power + 1e-10), dtype=np.float32)
