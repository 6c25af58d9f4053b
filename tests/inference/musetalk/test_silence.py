"""Where a speech is silent."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from inference.engines.musetalk import silence


def sound(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """Noise: (seconds, loudness) after each other."""
    random = np.random.default_rng(5)
    pieces = [random.normal(0, 1, round(seconds * 16_000)) * loudness for seconds, loudness in parts]
    return np.concatenate(pieces).astype(np.float32)


def quiet(samples: NDArray[np.float32], rate: Fraction = Fraction(25)) -> NDArray[np.bool_]:
    loudness = silence.measure(np.array_split(samples, 7))
    assert loudness.samples == len(samples)
    return silence.quiet(loudness, len(samples) * rate.numerator // (16_000 * rate.denominator), rate)


def test_levels_are_the_same_however_the_sound_comes_in() -> None:
    samples = sound((0.5, 0.1), (0.3, 0.001), (0.0037, 0.5))
    one = silence.measure([samples]).levels
    assert len(one) == 81
    assert np.array_equal(one, silence.measure(np.array_split(samples, 23)).levels)
    assert abs(float(one[:50].mean()) + 20) < 0.3  # 0.1 is -20 dB
    assert abs(float(one[50:80].mean()) + 60) < 0.3


def test_a_frame_is_quiet_when_all_that_it_hears_is() -> None:
    marks = quiet(sound((1, 0.1), (1, 0.0001), (1, 0.1)))
    # 1.0 s and 80 ms on is frame 27; 2.0 s less 120 ms is frame 47
    assert np.flatnonzero(marks).tolist() == list(range(27, 48))


def test_the_same_moments_are_quiet_at_every_rate() -> None:
    samples = sound((1, 0.1), (1, 0.0001), (1, 0.1))
    for rate in (Fraction(12), Fraction(24_000, 1001), Fraction(60)):
        times = np.flatnonzero(quiet(samples, rate)) / float(rate)
        assert 1.08 - 1e-9 <= times[0] < 1.08 + 1 / rate
        assert 1.88 - 1 / rate < times[-1] <= 1.88 + 1e-9


def test_a_pause_within_a_word_is_no_silence() -> None:
    assert not quiet(sound((1, 0.1), (0.3, 0.0001), (1, 0.1))).any()


def test_a_room_is_silent_between_loud_sentences() -> None:
    marks = quiet(sound((1, 0.3), (1, 0.003), (1, 0.3)))  # -10 dB against a room of -50 dB
    assert marks[27:48].all()


def test_a_soft_voice_alone_is_speech() -> None:
    assert not quiet(sound((2, 0.01))).any()


def test_minutes_of_silence_are_silent_throughout() -> None:
    assert quiet(np.zeros(16_000 * 180, np.float32)).all()
    assert silence.quiet(silence.measure([]), 5, Fraction(25)).all()


def test_after_the_speech_there_is_silence() -> None:
    loudness = silence.measure([sound((1, 0.1))])
    marks = silence.quiet(loudness, 60, Fraction(25))
    assert not marks[:27].any()
    assert marks[27:].all()
