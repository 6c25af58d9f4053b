"""Inputs that make trouble elsewhere: each becomes a right video, or an error that says what was wrong."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from errors import InvalidInput  # noqa: E402
from inference.engine import Inputs  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from media import write  # noqa: E402
from tests.inference.musetalk.engines import Say, changed, clip, ignore, levels, pictures, tone  # noqa: E402
from tests.media import files  # noqa: E402


def test_a_video_of_one_frame_is_a_still(say: Say, tmp_path: Path) -> None:
    path, metrics = say(clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.4))
    assert metrics.frames == 10
    assert all(changed(picture) for picture in pictures(path))


@pytest.mark.parametrize(("rate", "frames"), [(16, 8), (Fraction(30000, 1001), 14), (60, 30), (12, 6)])
def test_any_rate_is_kept_exactly(say: Say, tmp_path: Path, rate: Fraction | int, frames: int) -> None:
    path, metrics = say(clip(tmp_path / "a.mp4", [200] * 3, rate=rate), tone(tmp_path / "a.wav", 0.5))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == rate
    assert metrics.frames == frames


def test_a_rate_that_varies_becomes_a_constant_one(say: Say, tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48, 0.52]
    source = files.movie(tmp_path / "a.mkv", frames=10, size=(128, 128), times_s=times)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.5))
    assert len(pictures(path)) == metrics.frames == int(0.5 * metrics.fps)


def test_odd_sides_become_even(say: Say, tmp_path: Path) -> None:
    source = files.movie(tmp_path / "a.mkv", frames=4, size=(129, 131), pixels="yuv444p")
    _, metrics = say(source, tone(tmp_path / "a.wav", 0.2))
    assert (metrics.width, metrics.height) == (130, 132)


def test_a_camera_held_upright_makes_an_upright_video(say: Say, tmp_path: Path) -> None:
    source = files.turned(files.movie(tmp_path / "a.mp4", frames=4, size=(160, 128)), (0, 1, -1, 0))
    _, metrics = say(source, tone(tmp_path / "a.wav", 0.2))
    assert (metrics.width, metrics.height) == (128, 160)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mp4", "libx265", "yuv420p10le"), ("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p")],
)
def test_ten_bits_and_transparency_are_read(say: Say, tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    source = files.movie(tmp_path / name, frames=4, size=(128, 128), codec=codec, pixels=pixels)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.2), {"smooth": False})
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (5, 1)  # the first, without a bright bar
    top = pictures(path)[1][:12].reshape(-1, 3).mean(axis=0)
    assert top == pytest.approx([220, 30, 30], abs=8)


@pytest.mark.parametrize(("rate_hz", "layout"), [(8000, "mono"), (48000, "5.1")])
def test_sound_of_any_rate_and_channels_is_heard(say: Say, tmp_path: Path, rate_hz: int, layout: str) -> None:
    _, metrics = say(clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.4, rate_hz=rate_hz, layout=layout))
    assert metrics.frames == 10


def test_of_a_video_given_as_speech_only_the_sound_is_taken(say: Say, tmp_path: Path) -> None:
    other = [np.full((64, 64, 3), 30, np.uint8)] * 10
    write.write(tmp_path / "speech.mp4", other, rate=Fraction(25), speech=tone(tmp_path / "a.wav", 0.4))
    path, metrics = say(clip(tmp_path / "a.mp4", [200] * 5), tmp_path / "speech.mp4")
    assert (metrics.width, metrics.height) == (128, 128)
    assert levels(path) == pytest.approx([200] * metrics.frames, abs=3)
    assert all(changed(picture) for picture in pictures(path))
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_the_shortest_speech_is_one_frame_or_more(say: Say, tmp_path: Path, seconds: float) -> None:
    _, metrics = say(clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", seconds))
    assert metrics.frames == max(1, int(seconds * 25))


def test_a_silent_file_is_speech_with_a_closed_mouth(say: Say, tmp_path: Path) -> None:
    made = pictures(say(clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 1.0, loud=()))[0])
    assert len(made) == 25
    assert max(np.abs(made[0].astype(int) - picture).mean() for picture in made) < 1


@pytest.mark.slow
def test_three_minutes_of_silence_stay_silent(say: Say, tmp_path: Path) -> None:
    made = pictures(say(clip(tmp_path / "a.mp4", [200], rate=10), tone(tmp_path / "a.wav", 180.0, loud=()))[0])
    assert len(made) == 1800
    assert max(np.abs(made[0].astype(int) - picture).mean() for picture in made) < 1


def test_a_face_that_leaves_is_let_go(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200] * 5 + [20] * 15)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.8))
    assert metrics.extra["frames_without_face"] == 15
    assert [changed(picture) for picture in pictures(path)] == [True] * 5 + [False] * 15


def test_a_name_that_a_shell_would_read_is_only_a_name(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200]).rename(tmp_path / "a.b $(touch x); 'c'.mp4")
    assert say(source, tone(tmp_path / "a.wav", 0.2))[1].frames == 5


@pytest.mark.parametrize(
    ("video", "speech", "said", "message"),
    [
        (b"not a video", None, {}, "text, not media"),
        (None, b"not a sound", {}, "text, not media"),
        (None, None, {"loops": 1}, "params.loops: unknown parameter; known parameters:"),
        (None, None, {"loop": "twice"}, "params.loop: got 'twice', must be loop or hold or cut"),
        (None, None, {"face": 60}, "params.face: got 60, must be 0 to"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    engine: Engine, tmp_path: Path, video: bytes | None, speech: bytes | None, said: dict[str, Any], message: str
) -> None:
    source, sound = clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.2)
    for path, content in ((source, video), (sound, speech)):
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as raised:
        engine.prepare(Inputs(video=source, audio=sound), said, ignore)
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(("ratio", "resolution"), [("1:100", "64x64"), ("999:1", "4096x4096"), ("9:16", "100x100")])
def test_a_shape_that_nobody_can_play_is_refused_with_what_may_be(
    engine: Engine, tmp_path: Path, ratio: str, resolution: str
) -> None:
    inputs = Inputs(
        video=clip(tmp_path / "a.mp4", [200]),
        audio=tone(tmp_path / "a.wav", 0.1),
        fields={"aspect_ratio": ratio, "resolution": resolution},
    )
    for fit in ("crop", "pad"):
        with pytest.raises(InvalidInput, match=f"aspect_ratio: got {ratio}, which in {resolution} .* from 64 to 4096 pixels"):
            engine.prepare(inputs, {"fit": fit}, ignore)
    assert engine.prepare(inputs, {"fit": "source"}, ignore).shape.width == 128


def test_speech_without_sound_and_jobs_without_speech_are_refused(engine: Engine, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200])
    with pytest.raises(InvalidInput, match="the file has no audio"):
        engine.prepare(Inputs(video=source, audio=source), {}, ignore)
    with pytest.raises(InvalidInput, match="audio_url is missing"):
        engine.prepare(Inputs(video=source), {}, ignore)
    with pytest.raises(InvalidInput, match="audio only"):
        engine.prepare(Inputs(video=tone(tmp_path / "a.wav", 0.2), audio=tone(tmp_path / "b.wav", 0.2)), {}, ignore)
