"""The UNet's audio input: for every output frame, the hidden states of Whisper's encoder around its time.

As in the published `audio_processor`: 16 kHz samples in segments of 30 s, each with its own log mel spectrogram, through the
encoder only; its five hidden states at 50 per second; ten of them per frame, 80 ms before to 120 ms after. At 25 frames per
second this is bit-exact with the published code. At other rates the published code assumes an integer frame rate and its window
drifts; here the rate is exact and the window stays in place (docs/musetalk.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from errors import InvalidInput
from inference.engines import card

SAMPLE_RATE_HZ = 16_000
#: The length of Whisper's input.
SEGMENT = 30 * SAMPLE_RATE_HZ
SEGMENT_MELS = 3000

#: The log mel spectrogram: FFT size and hop in samples, number of bands up to 8 kHz.
TRANSFORM, HOP, BANDS = 400, 160, 80
#: Hidden states per second, and samples per state.
STATES_HZ = 50
STATE_SAMPLES = SAMPLE_RATE_HZ // STATES_HZ

#: A frame's window: the number of states, and how many of them are before it.
WINDOW, BEFORE = 10, 4
#: Tokens of a window (ten times five states), and their size.
TOKENS, SIZE = 50, 384

#: The padding before the speech begins and after it ends: zeros, or (version 1.0 as trained) its first and last state.
Ends = Literal["zeros", "repeat"]

Samples = NDArray[np.float32]


def frames(samples: int, rate: Fraction) -> int:
    """The number of output frames for that many samples, at least one."""
    return max(1, math.floor(samples * rate / SAMPLE_RATE_HZ))


def hidden(samples: Iterable[Samples], encoder: Any, *, as_trained: bool = False) -> torch.Tensor:
    """A whole speech at once, (states, 5, size) on the encoder's device; an hour is 1.4 GB in float32, see `listen`.

    Raises InvalidInput if there are no samples.
    """
    heard = list(listen(samples, encoder, as_trained=as_trained))
    if not heard:
        raise InvalidInput("the speech has no decodable samples")
    return torch.cat(heard)


def listen(samples: Iterable[Samples], encoder: Any, *, as_trained: bool = False) -> Iterator[torch.Tensor]:
    """The same in pieces of up to 30 s, (up to 1500, 5, size), each on the encoder's device and in its dtype.

    samples: mono, -1 to 1, in chunks of any length. encoder: transformers' WhisperEncoder. as_trained is what version 1.0
    was trained with: loudness relative to the whole speech rather than its segment, and the fifth state before the last norm.
    It keeps the whole speech in memory (an hour: 350 MB); otherwise at most one segment is in memory.
    """
    weights = next(iter(encoder.parameters()))
    if as_trained:
        for mel, states in _whole_mels(samples, weights.device):
            yield _states(encoder, mel.to(weights.dtype), normed=False)[:states]
        return
    for segment in segments(samples):
        mel = log_mel(torch.from_numpy(np.pad(segment, (0, SEGMENT - len(segment)))).to(weights.device))
        yield _states(encoder, mel.to(weights.dtype), normed=True)[: len(segment) // STATE_SAMPLES]


def segments(samples: Iterable[Samples]) -> Iterator[Samples]:
    """Chunks of any length to chunks of SEGMENT samples; the last one has the remainder."""
    kept: list[Samples] = []
    held = 0
    for chunk in samples:
        kept.append(chunk)
        held += len(chunk)
        if held >= SEGMENT:
            whole = np.concatenate(kept)
            for first in range(0, held - SEGMENT + 1, SEGMENT):
                yield whole[first : first + SEGMENT]
            kept, held = [whole[held - held % SEGMENT :]], held % SEGMENT
    if held:
        yield np.concatenate(kept)


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """(80, n / 160) float32 from (n,) float32: Whisper's log mel spectrogram, clamped to 8 decades below its maximum."""
    spectrum = torch.stft(samples, TRANSFORM, HOP, window=_window(samples.device), return_complex=True)
    return _scaled(_bands(spectrum[:, :-1]))


def windows(states: torch.Tensor, frames: range, rate: Fraction, ends: Ends = "zeros", first: int = 0) -> torch.Tensor:
    """(len(frames), 50, size): the windows of these output frames, from states (n, 5, size); ordered by time, then layer.

    first: the index of the first of these states in the speech. Frame i gets states floor(50 i / rate) - 4 to + 5.
    """
    starts = [frame * STATES_HZ * rate.denominator // rate.numerator - BEFORE - first for frame in frames]
    at = np.array(starts, np.int64).reshape(-1, 1) + np.arange(WINDOW)
    if len(states) == 0:
        return states.new_zeros((len(at), TOKENS, states.shape[2]))
    heard = states[card.sent(at.clip(0, len(states) - 1), states.device)]
    outside = (at < 0) | (at >= len(states))
    if ends == "zeros" and outside.any():
        heard = heard.masked_fill(card.sent(outside, states.device)[..., None, None], 0)
    return heard.flatten(1, 2)


def batches(
    pieces: Iterable[torch.Tensor], frames: int, rate: Fraction, size: int, ends: Ends = "zeros", device: Any = "cpu"
) -> Iterator[torch.Tensor]:
    """The windows of frames 0 … frames - 1 in batches of `size`, the last one shorter, while `listen` continues. device: where
    the pieces are; needed because a speech of a few samples has none.

    At most one piece and one batch of states are in memory.
    """
    source = iter(pieces)
    kept, first, ended = next(source, torch.zeros(0, 5, SIZE, device=device)), 0, False
    for start in range(0, frames, size):
        batch = range(start, min(start + size, frames))
        stop = batch[-1] * STATES_HZ * rate.denominator // rate.numerator - BEFORE + WINDOW
        while not ended and first + len(kept) < stop:
            piece = next(source, None)
            ended = piece is None
            kept = kept if piece is None else torch.cat([kept, piece])
        yield windows(kept, batch, rate, ends, first)
        passed = batch[-1] * STATES_HZ * rate.denominator // rate.numerator - BEFORE - 1 - first
        dropped = min(max(passed, 0), max(len(kept) - 1, 0))  # keep one to repeat at the end
        kept, first = kept[dropped:], first + dropped


def silence(encoder: Any, *, as_trained: bool = False) -> torch.Tensor:
    """(50, size): a frame's window in the middle of silence. Used for every frame that `silence.quiet` marks, it closes the
    mouth, and noise in a pause does not move it."""
    nothing = [np.zeros(2 * SAMPLE_RATE_HZ, np.float32)]
    return windows(hidden(nothing, encoder, as_trained=as_trained), range(1, 2), Fraction(1))[0]


def positions() -> torch.Tensor:
    """(50, 384) float32, added to every window: sines in the even columns, cosines in the odd (base 10000)."""
    place = torch.arange(TOKENS, dtype=torch.float32)[:, None]
    turns = place * torch.exp(torch.arange(0, SIZE, 2).float() * (-math.log(10000.0) / SIZE))
    return torch.stack([torch.sin(turns), torch.cos(turns)], dim=2).flatten(1)


def _states(encoder: Any, mel: torch.Tensor, *, normed: bool) -> torch.Tensor:
    """(1500, 5, size) from (80, 3000): the embedding and each block's output, the last one after the final norm or before."""
    before: list[torch.Tensor] = []
    hook = encoder.layer_norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    try:
        with torch.no_grad():
            states = list(encoder(mel[None], output_hidden_states=True).hidden_states)
    finally:
        hook.remove()
    if not normed:
        states[-1] = before[0]
    return torch.stack(states, dim=2)[0]


def _whole_mels(samples: Iterable[Samples], device: Any) -> Iterator[tuple[torch.Tensor, int]]:
    """The log mel spectrogram of the whole speech in pieces (80, 3000), the last zero-padded, with each piece's number of
    states."""
    chunks = list(samples)
    if not chunks:
        return
    whole = torch.from_numpy(np.concatenate(chunks))
    whole = torch.nn.functional.pad(whole, (0, max(0, TRANSFORM - len(whole)))).to(device)
    around = torch.nn.functional.pad(whole[None], (TRANSFORM // 2, TRANSFORM // 2), mode="reflect")[0]
    count = len(whole) // HOP
    parts = []
    for first in range(0, count, SEGMENT_MELS):
        part = around[first * HOP : (min(first + SEGMENT_MELS, count) - 1) * HOP + TRANSFORM]
        spectrum = torch.stft(part, TRANSFORM, HOP, window=_window(device), center=False, return_complex=True)
        parts.append(_bands(spectrum))
    for mel in _scaled(torch.cat(parts, dim=1)).split(SEGMENT_MELS, dim=1):
        yield torch.nn.functional.pad(mel, (0, SEGMENT_MELS - mel.shape[1])), mel.shape[1] // 2


def _bands(spectrum: torch.Tensor) -> torch.Tensor:
    power = (spectrum.abs() ** 2).contiguous()
    return torch.clamp(torch.from_numpy(mel_filters()).to(power.device).T @ power, min=1e-10).log10()


def _scaled(logs: torch.Tensor) -> torch.Tensor:
    return (torch.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


def _window(device: Any) -> torch.Tensor:
    return torch.hann_window(TRANSFORM, device=device)


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """(201, 80): triangles between neighbouring points of Slaney's mel scale, each with a peak of 2 / width.

    The scale is linear up to 1 kHz (15 steps), then logarithmic with 27 steps per factor of 6.4.
    """
    step = math.log(6.4) / 27
    top = 15 + math.log(8000 / 1000) / step
    mels = np.linspace(0, top, BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * step))
    bins = np.linspace(0, SAMPLE_RATE_HZ // 2, TRANSFORM // 2 + 1)
    slopes = edges[None] - bins[:, None]
    widths = np.diff(edges)
    triangles = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2])), dtype=np.float32)
