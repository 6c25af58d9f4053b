"""Speech of any shape becomes the samples that were asked for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from errors import InvalidInput
from media import audio, write
from tests.media import files

SPEECH = Path(__file__).resolve().parents[2] / "samples" / "speech.wav"


def heard(path: Path, rate_hz: int = 16_000) -> np.ndarray:
    return np.concatenate(list(audio.mono(path, rate_hz)))


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate_hz"),
    [
        ("a.wav", "pcm_u8", "mono", 8000),
        ("a.wav", "pcm_s24le", "stereo", 44100),
        ("a.wav", "pcm_s16le", "5.1", 48000),
        ("a.mp3", "libmp3lame", "mono", 22050),
        ("a.m4a", "aac", "stereo", 48000),
        ("a.ogg", "libopus", "stereo", 48000),
        ("a.flac", "flac", "mono", 96000),
    ],
)
def test_any_sound_becomes_mono_at_the_rate_asked_for(tmp_path: Path, name: str, codec: str, layout: str, rate_hz: int) -> None:
    samples = heard(files.sound(tmp_path / name, seconds=2, codec=codec, layout=layout, rate_hz=rate_hz))
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(32_000, abs=2400)  # some codecs pad both ends
    tone = samples[8000:24_000]
    assert np.abs(np.fft.rfft(tone)).argmax() == pytest.approx(440, abs=2)
    assert 0.2 < np.abs(tone).max() <= 1.0


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_f32le"), ("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.flac", "flac")]
)
def test_two_channels_are_as_loud_as_their_mean(tmp_path: Path, name: str, codec: str) -> None:
    both = heard(files.sound(tmp_path / name, codec=codec, layout="stereo"))
    one = heard(files.sound(tmp_path / name, codec=codec, layout="stereo", loud=(1,)))
    for samples, loudest in ((both, 0.5), (one, 0.25)):
        assert np.abs(samples[4000:12_000]).max() == pytest.approx(loudest, abs=0.02)


def test_speech_in_the_centre_of_5_1_is_heard(tmp_path: Path) -> None:
    samples = heard(files.sound(tmp_path / "a.wav", layout="5.1", rate_hz=48_000, loud=(2,)))
    assert np.abs(samples[4000:12_000]).max() > 0.1


def test_the_sound_of_a_video_is_speech_too(tmp_path: Path) -> None:
    speech = files.sound(tmp_path / "a.wav", seconds=1)
    picture = files.numbered(1, 64, 64)
    write.write(tmp_path / "a.mp4", [picture] * 25, rate=Fraction(25), speech=speech)
    assert len(heard(tmp_path / "a.mp4")) == pytest.approx(16_000, abs=1500)


def test_speech_in_a_finished_video_is_near_to_the_original(tmp_path: Path) -> None:
    picture = files.numbered(1, 64, 64)
    write.write(tmp_path / "a.mp4", [picture] * 50, rate=Fraction(25), speech=SPEECH)
    before, after = heard(SPEECH, 48_000)[:90_000], heard(tmp_path / "a.mp4", 48_000)[:90_000]
    assert 10 * np.log10(np.square(before).mean() / np.square(after - before).mean()) > 35  # decibels; and at the same time


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no audio"):
        heard(files.movie(tmp_path / "a.mp4"))


def test_long_speech_comes_in_small_chunks(tmp_path: Path) -> None:
    path = files.sound(tmp_path / "a.wav", seconds=60)
    assert max(len(chunk) for chunk in audio.mono(path, 16_000)) < 50_000


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 2)])
def test_a_sound_track_is_mono_or_stereo_at_48_khz(tmp_path: Path, layout: str, channels: int) -> None:
    frames = list(audio.track(files.sound(tmp_path / "a.wav", layout=layout)))
    assert {frame.sample_rate for frame in frames} == {48_000}
    assert {frame.layout.nb_channels for frame in frames} == {channels}
    assert sum(frame.samples for frame in frames) == pytest.approx(48_000, abs=64)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, 7.5])
def test_what_is_no_sample_is_heard_as_none_and_encoded(tmp_path: Path, odd: float) -> None:
    values = 0.5 * np.sin(np.arange(16_000) * 0.2)
    values[8000:8100] = odd
    speech = files.floats(tmp_path / "a.wav", values)
    samples = heard(speech)
    assert np.abs(samples).max() <= 1
    assert np.abs(samples[:7500] - values[:7500]).max() < 0.01
    assert np.abs(samples[8500:] - values[8500 : len(samples)]).max() < 0.01
    write.write(tmp_path / "a.mp4", [files.numbered(1, 64, 64)] * 25, rate=Fraction(25), speech=speech)
    assert np.abs(heard(tmp_path / "a.mp4")).max() > 0.3
