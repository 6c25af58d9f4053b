"""What the UNet hears: the published arithmetic at 25 frames a second, an exact clock at every other rate."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import WhisperConfig, WhisperFeatureExtractor  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from errors import InvalidInput  # noqa: E402
from inference.engines.musetalk import speech  # noqa: E402

SIZE = 16


@cache
def encoder() -> Any:
    """Whisper's encoder as it is, but narrow, with random weights."""
    torch.manual_seed(3)
    config = WhisperConfig(
        d_model=SIZE, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=32, decoder_layers=1, num_mel_bins=80
    )
    made = WhisperEncoder(config).eval().requires_grad_(False)
    torch.nn.init.normal_(made.layer_norm.weight)
    return made


def sound(seconds: float, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    count = round(seconds * 16_000)
    wave = np.sin(np.arange(count) * 0.05) * 0.3 + random.normal(0, 0.02, count)
    return wave.astype(np.float32)


def published_windows(states: Any, samples: int) -> Any:
    """The published rule at 25 frames a second: 4 states of zeros before, 12 after, ten states from every second one on."""
    padded = np.concatenate([np.zeros((4, *states.shape[1:])), states, np.zeros((12, *states.shape[1:]))])
    return [padded[2 * frame : 2 * frame + 10].reshape(50, -1) for frame in range(math.floor(samples / 16_000 * 25))]


@pytest.mark.parametrize("seconds", [0.1, 1, 29.9, 30.0, 30.1, 61])
def test_windows_at_25_frames_a_second_are_the_published_ones(seconds: float) -> None:
    samples = round(seconds * 16_000)
    states = np.random.default_rng(1).normal(0, 1, (samples // 320, 5, 8)).astype(np.float32)
    wanted = published_windows(states, samples)
    count = speech.frames(samples, Fraction(25))
    assert count == len(wanted)
    made = speech.windows(torch.from_numpy(states), range(count), Fraction(25))
    assert made.shape == (count, 50, 8)
    assert np.array_equal(made.numpy(), np.stack(wanted))


RATES = [Fraction(12), Fraction(24_000, 1001), Fraction(24), Fraction(30_000, 1001), *map(Fraction, (30, 49, 50, 60))]


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("ends", ["zeros", "repeat"])
def test_at_every_rate_the_window_lies_the_same_around_the_frames_moment(rate: Fraction, ends: speech.Ends) -> None:
    samples = 8 * 16_000
    states = torch.arange(1, 401.0).view(-1, 1, 1).expand(400, 5, 1)  # each says its own number, from 1
    count = speech.frames(samples, rate)
    assert count == math.floor(8 * rate)
    made = speech.windows(states, range(count), rate, ends)
    for frame in (0, 1, 2, 3, count // 2, count - 2, count - 1):
        middle = math.floor(Fraction(frame) / rate * 50)
        wanted = []
        for at in range(middle - 4, middle + 6):
            inside = min(max(at, 0), 399)
            wanted += [float(inside + 1) if ends == "repeat" or at == inside else 0.0] * 5
        assert made[frame, :, 0].tolist() == wanted


def test_the_frames_of_ntsc_rates_keep_pace_with_the_sound() -> None:
    assert speech.frames(8 * 16_000, Fraction(30_000, 1001)) == 239
    assert speech.frames(3600 * 16_000, Fraction(24_000, 1001)) == 86313


def test_a_speech_shorter_than_a_frame_still_makes_one() -> None:
    assert speech.frames(100, Fraction(25)) == 1
    made = speech.windows(speech.hidden([sound(0.006)], encoder()), range(1), Fraction(25))
    assert made.shape == (1, 50, SIZE)
    assert not made.any()


def test_no_sample_at_all_is_refused() -> None:
    for trained in (False, True):
        with pytest.raises(InvalidInput, match="no decodable samples"):
            speech.hidden([], encoder(), as_trained=trained)


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
@pytest.mark.parametrize("rate", [Fraction(12), Fraction(25), Fraction(30_000, 1001), Fraction(60)], ids=str)
@pytest.mark.parametrize("ends", ["zeros", "repeat"])
def test_batches_while_listening_are_the_windows_of_the_whole(size: int, rate: Fraction, ends: speech.Ends) -> None:
    states = torch.randn(421, 5, 3, generator=torch.Generator().manual_seed(2))
    count = speech.frames(421 * 320, rate) + 3  # some frames after the end too
    made = list(speech.batches(states.split([150, 150, 100, 21]), count, rate, size, ends))
    assert [len(batch) for batch in made] == [size] * (count // size) + ([count % size] if count % size else [])
    assert torch.equal(torch.cat(made), speech.windows(states, range(count), rate, ends))


def test_listening_keeps_no_more_than_a_piece_and_a_batch() -> None:
    asked = []

    def pieces() -> Any:
        for number in range(10):
            asked.append(number)
            yield torch.zeros(1500, 5, 1)

    taken = speech.batches(pieces(), 7500, Fraction(25), 16)
    for _ in range(47):  # 30 s are 46.9 batches
        next(taken)
    assert asked == [0, 1]


def test_chunks_of_any_length_become_segments_of_30_seconds() -> None:
    whole = sound(70)
    for cuts in ([100, 5000], [480_000], [479_999, 480_001], [960_000], [1_119_999]):
        made = list(speech.segments(np.array_split(whole, cuts)))
        assert [len(segment) for segment in made] == [480_000, 480_000, 160_000]
        assert np.array_equal(np.concatenate(made), whole)
    assert [len(segment) for segment in speech.segments(np.array_split(sound(60), 7))] == [480_000, 480_000]


def test_the_log_mel_picture_is_whispers_own() -> None:
    published = WhisperFeatureExtractor()
    assert np.array_equal(speech.mel_filters(), published.mel_filters.astype(np.float32))
    for samples in (sound(2.5), np.zeros(5000, np.float32)):
        wanted = published(samples, sampling_rate=16_000, return_tensors="np").input_features[0]
        made = speech.log_mel(torch.from_numpy(np.pad(samples, (0, 480_000 - len(samples)))))
        assert np.array_equal(made.numpy(), wanted)


def test_hidden_states_are_those_of_each_segment_alone_without_its_padding() -> None:
    samples = sound(31.013)
    published = WhisperFeatureExtractor()
    wanted = []
    for part in (samples[:480_000], samples[480_000:]):
        mel = torch.from_numpy(published(part, sampling_rate=16_000, return_tensors="np").input_features)
        states = encoder()(mel, output_hidden_states=True).hidden_states
        assert len(states) == 5
        wanted.append(torch.stack(states, dim=2)[0, : len(part) // 320])
    made = speech.hidden(np.array_split(samples, 9), encoder())
    assert made.shape == (1550, 5, SIZE)
    assert torch.equal(made, torch.cat(wanted))


def test_as_version_1_0_was_trained_the_whole_speech_sets_the_loudness_and_the_last_state_is_raw() -> None:
    samples = np.concatenate([sound(30.2) * 0.001, sound(1.0, 1)])
    published = WhisperFeatureExtractor()
    whole = published._torch_extract_fbank_features(samples)  # one picture of any length
    filled = np.zeros((1, 80, 3000), np.float32)
    filled[0, :, : whole.shape[1] - 3000] = whole[:, 3000:]
    made = speech.hidden(np.array_split(samples, 3), encoder(), as_trained=True)
    assert made.shape == (1560, 5, SIZE)
    for mel, states in ((torch.from_numpy(whole[None, :, :3000]), made[:1500]), (torch.from_numpy(filled), made[1500:])):
        wanted = encoder()(mel, output_hidden_states=True).hidden_states
        for layer in range(4):
            assert torch.allclose(states[:, layer], wanted[layer][0, : len(states)], atol=1e-4)
        assert not torch.allclose(states[:, 4], wanted[4][0, : len(states)], atol=0.1)
        assert torch.allclose(encoder().layer_norm(states[:, 4]), wanted[4][0, : len(states)], atol=1e-4)


def test_the_window_of_silence_is_one_and_the_same() -> None:
    made = speech.silence(encoder())
    assert made.shape == (50, SIZE)
    assert torch.equal(made, speech.silence(encoder()))
    whole = speech.hidden([np.zeros(48_000, np.float32)], encoder())
    assert torch.allclose(made, whole[46:56].flatten(0, 1))


def test_positions_are_sines_and_cosines() -> None:
    made = speech.positions()
    assert made.shape == (50, 384)
    assert made.dtype == torch.float32
    turns = torch.exp(torch.arange(0, 384, 2).float() * (-math.log(10000.0) / 384))
    for token in (0, 1, 17, 49):
        angles = torch.tensor(float(token)) * turns
        assert torch.equal(made[token, 0::2], torch.sin(angles))
        assert torch.equal(made[token, 1::2], torch.cos(angles))
    assert made[49, 383] == pytest.approx(math.cos(49 / 10000 ** (382 / 384)), abs=1e-6)
