"""Where a speech is silent, so that the mouth is too.

The encoder hears noise in a pause and the UNet moves the mouth to it. A frame whose whole window is silent is therefore
generated from the window of digital silence (`speech.silence`), the same for every such frame: the mouth is closed, by the
model and on the person's own picture, and stays closed. Off in parity.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: One level each hundredth of a second.
LEVELS_HZ = 100
HOP = 16_000 // LEVELS_HZ

#: What a frame hears, in seconds around its moment, see speech.py.
BEFORE_S, AFTER_S = 0.08, 0.12

#: Silence is so far below the speech's louder parts, in dB; but never louder nor quieter than these, of full scale.
BELOW_DB, LOUDEST_DB, QUIETEST_DB = 35.0, -40.0, -55.0
#: A shorter silence is a pause within a word, which the model knows how to show.
SHORTEST_S = 0.2


@dataclass(frozen=True)
class Loudness:
    """Of a whole speech. levels: (n,) float32, dB of full scale, LEVELS_HZ of them a second; an hour has 360,000."""

    samples: int
    levels: NDArray[np.float32]


def measure(samples: Iterable[NDArray[np.float32]]) -> Loudness:
    """From 16 kHz mono in chunks of any length, read once."""
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
    """(frames,): which output frames hear nothing but silence. What lies beyond the speech's ends is silent too."""
    levels = loudness.levels
    if not len(levels):
        return np.ones(frames, np.bool_)
    limit = min(max(float(np.percentile(levels, 95)) - BELOW_DB, QUIETEST_DB), LOUDEST_DB)
    heard_before = np.concatenate([[0], np.cumsum(levels >= limit)])  # loud levels before each
    moments = np.arange(frames) * LEVELS_HZ * rate.denominator / rate.numerator
    first = np.clip(np.floor(moments - BEFORE_S * LEVELS_HZ).astype(np.int64), 0, len(levels))
    stop = np.clip(np.ceil(moments + AFTER_S * LEVELS_HZ).astype(np.int64), 0, len(levels))
    return _long(heard_before[stop] == heard_before[first], round(SHORTEST_S * rate))


def _long(marks: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Only those runs of marks that are at least so long."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    kept = np.zeros_like(marks)
    for start, stop in change.reshape(-1, 2):
        kept[start:stop] = stop - start >= least
    return kept


def _db(hops: NDArray[np.float32]) -> NDArray[np.float32]:
    power = np.mean(np.square(hops, dtype=np.float32), axis=1)
    return np.asarray(10 * np.log10(power + 1e-10), dtype=np.float32)
