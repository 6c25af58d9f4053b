"""The audio windows of the output frames, in batches; silent where the speech is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card
from inference.engines.musetalk import silence, speech
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.params import Params
from media import audio

#: Decoded audio chunks (a few hundredths of a second each) between two calls of `while_listening`.
CHUNKS = 200


def measure(path: Path, while_listening: Callable[[], None]) -> silence.Loudness:
    """The speech's length and its loudness over time. Raises InvalidInput if no audio can be decoded. while_listening is called
    repeatedly; exceptions from it propagate."""

    def heard() -> Iterator[NDArray[np.float32]]:
        for number, chunk in enumerate(audio.mono(path, speech.SAMPLE_RATE_HZ)):
            if number % CHUNKS == 0:
                while_listening()
            yield chunk

    return silence.measure(heard())


def windows(
    path: Path, models: Models, params: Params, loudness: silence.Loudness, frames: int, rate: Fraction, size: int
) -> Iterator[torch.Tensor]:
    """(size, 50, 384) on the device for frames 0 … frames - 1 in order; the last batch is shorter."""
    as_trained = params.version == "1.0" and not params.parity
    heard = speech.listen(audio.mono(path, speech.SAMPLE_RATE_HZ), models.whisper, as_trained=as_trained)
    quiet = silence.quiet(loudness, frames, rate) & (not params.parity)
    nothing = _nothing(models, as_trained) if quiet.any() else None
    first = 0
    for batch in speech.batches(heard, frames, rate, size, "repeat" if as_trained else "zeros", models.device):
        still = quiet[first : first + len(batch)]
        if nothing is not None and still.any():
            batch = torch.where(card.sent(still, batch.device)[:, None, None], nothing, batch)
        first += len(batch)
        yield batch


#: The window of silence per encoder, cached: it costs as much as encoding half a minute of speech.
_HEARD: WeakKeyDictionary[Any, dict[bool, torch.Tensor]] = WeakKeyDictionary()


def _nothing(models: Models, as_trained: bool) -> torch.Tensor:
    heard = _HEARD.setdefault(models.whisper, {})
    if as_trained not in heard:
        heard[as_trained] = speech.silence(models.whisper, as_trained=as_trained)
    return heard[as_trained]
