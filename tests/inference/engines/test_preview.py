"""The preview engine, run on the sample job and on people, pictures and files that make trouble."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from errors import Cancelled, InvalidInput
from inference.engine import Engine as Plug
from inference.engine import Inputs, Metrics
from inference.engines.preview import face, loudness
from inference.engines.preview.engine import Engine
from media import boxes, video, write
from media.still import Picture
from tests.media import files

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
FACE, PHOTO, SPEECH = SAMPLES / "face.mp4", SAMPLES / "face.jpg", SAMPLES / "speech.wav"

#: Of the sample video: where the mouth is, and a part of the picture that nothing may touch (left, top, right, bottom).
MOUTH, HAIR = (200, 250, 310, 330), (0, 0, 512, 190)


def ignore(phase: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def run(tmp_path: Path, source: Path, speech: Path, progress: Any = ignore) -> tuple[Path, Metrics]:
    engine: Plug = Engine()
    engine.load(tmp_path, "cpu")
    prepared = engine.prepare(Inputs(video=source, audio=speech), {}, progress)
    return tmp_path / "out.mp4", engine.generate(prepared, tmp_path / "out.mp4", progress)


def pictures(path: Path) -> list[Picture]:
    return list(video.pictures(video.open_clip(path)))


def change(one: Picture, other: Picture, part: tuple[int, int, int, int]) -> float:
    """The mean difference of two pictures in a part of them."""
    left, top, right, bottom = part
    return float(np.abs(one[top:bottom, left:right].astype(int) - other[top:bottom, left:right]).mean())


def talking(path: Path, *parts: tuple[float, bool]) -> Path:
    """Speech made of parts: seconds, and whether they are loud."""
    samples = np.concatenate([(0.5 if loud else 0.0) * np.ones(round(seconds * 16_000)) for seconds, loud in parts])
    return files.samples(path, samples * np.sin(np.arange(len(samples)) * 0.2))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return run(tmp_path_factory.mktemp("sample"), FACE, SPEECH)


def test_the_output_has_the_videos_size_and_rate_and_the_speechs_length(sample: tuple[Path, Metrics]) -> None:
    path, metrics = sample
    with av.open(str(path)) as container:
        [picture], [sound] = container.streams.video, container.streams.audio
        assert (picture.width, picture.height, picture.average_rate) == (512, 512, 25)
        assert (picture.codec_context.name, picture.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sound.codec_context.name == "aac"
        assert container.duration / 1e6 == pytest.approx(6.42, abs=0.04)
        assert picture.frames == metrics.frames == 161
    assert [kind for kind, _, _ in boxes.top_level(path)].index("moov") < 2


def test_the_metrics_say_what_was_done(sample: tuple[Path, Metrics]) -> None:
    metrics = sample[1]
    assert (metrics.width, metrics.height, metrics.fps) == (512, 512, 25.0)
    assert metrics.duration_sec == pytest.approx(6.44)
    assert set(metrics.stage_times) == {"preprocessing", "inference", "postprocessing"}
    assert min(metrics.stage_times.values()) > 0
    assert metrics.extra["frames_without_face"] == 0


def test_the_mouth_moves_with_the_loudness_and_nothing_else_moves(sample: tuple[Path, Metrics]) -> None:
    source, made = pictures(FACE), pictures(sample[0])
    cycle = itertools.islice(itertools.cycle([*source, *reversed(source)]), len(made))
    openings = loudness.openings(loudness.levels_db(SPEECH, lambda: None), len(made), 25.0)
    moved, elsewhere = [], []
    for before, after in zip(cycle, made, strict=True):
        moved.append(change(before, after, MOUTH))
        elsewhere.append(change(before, after, HAIR))
    assert np.corrcoef(moved, openings)[0, 1] > 0.8
    assert max(elsewhere) < 3  # what encoding changes
    assert np.mean(np.array(moved)[openings > 0.7]) > 4 * np.mean(np.array(moved)[openings < 0.02])


def test_a_loud_part_opens_the_mouth_and_silence_shuts_it(tmp_path: Path) -> None:
    speech = talking(tmp_path / "a.wav", (0.6, False), (0.6, True), (0.6, False))
    made, source = pictures(run(tmp_path, PHOTO, speech)[0]), pictures(PHOTO)[0]
    moved = [change(source, picture, (170, 80, 270, 230)) for picture in made]
    assert len(made) == 45
    assert max(*moved[:13], *moved[32:]) * 1.5 < min(moved[17:28])


def test_a_mouth_stays_shut_in_silence(tmp_path: Path) -> None:
    made = pictures(run(tmp_path, PHOTO, talking(tmp_path / "a.wav", (0.5, False)))[0])
    assert max(change(made[0], picture, (0, 0, 512, 512)) for picture in made) < 2


def test_a_photo_of_odd_size_becomes_a_video(tmp_path: Path) -> None:
    photo = cv2.imread(str(PHOTO))
    assert photo is not None
    cv2.imwrite(str(tmp_path / "odd.png"), photo[:501, :511])
    _, metrics = run(tmp_path, tmp_path / "odd.png", talking(tmp_path / "a.wav", (0.5, True)))
    assert (metrics.width, metrics.height, metrics.fps, metrics.frames) == (512, 502, 25.0, 13)


def test_a_video_without_a_face_is_refused_with_what_was_looked_at(tmp_path: Path) -> None:
    source = files.movie(tmp_path / "a.mp4", frames=134, size=(128, 128))
    with pytest.raises(InvalidInput, match=r"no face found.*of 134 frames from 0.00 s to 5.32 s") as raised:
        run(tmp_path, source, SPEECH)
    assert raised.value.stage == "preprocessing"


def test_frames_without_a_face_in_between_pass_through(tmp_path: Path) -> None:
    grey = np.full((512, 512, 3), 128, np.uint8)
    parts = [*pictures(FACE)[:40], *[grey] * 80, *pictures(FACE)[40:80]]
    write.write(tmp_path / "in.mp4", parts, rate=Fraction(25), speech=None)
    path, metrics = run(tmp_path, tmp_path / "in.mp4", talking(tmp_path / "a.wav", (6.4, True)))
    made = pictures(path)
    assert 40 < metrics.extra["frames_without_face"] < 80
    assert max(change(grey, picture, (0, 0, 512, 512)) for picture in made[60:100]) < 2
    assert change(parts[30], made[30], MOUTH) > 5
    assert change(parts[140], made[140], MOUTH) > 5


def test_a_face_that_is_turned_by_the_camera_is_found(tmp_path: Path) -> None:
    sideways = [np.ascontiguousarray(np.rot90(picture)) for picture in pictures(FACE)[:20]]
    write.write(tmp_path / "in.mp4", sideways, rate=Fraction(25), speech=None)
    files.turned(tmp_path / "in.mp4", (0, 1, -1, 0))
    path, metrics = run(tmp_path, tmp_path / "in.mp4", talking(tmp_path / "a.wav", (0.8, True)))
    assert metrics.extra["frames_without_face"] == 0
    assert change(pictures(FACE)[10], pictures(path)[10], MOUTH) > 5


@pytest.mark.parametrize("phase", ["preparing", "inferring"])
def test_cancel_is_obeyed_within_a_second(tmp_path: Path, phase: str) -> None:
    cancelled_at: list[float] = []

    def cancel(now: str, done: int, total: int) -> None:
        if now == phase and done >= 10:
            cancelled_at.append(time.monotonic())
            raise Cancelled

    with pytest.raises(Cancelled):
        run(tmp_path, FACE, SPEECH, cancel)
    assert len(cancelled_at) == 1
    assert time.monotonic() - cancelled_at[0] < 1


def test_progress_counts_every_frame_and_never_goes_back(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    run(tmp_path, FACE, talking(tmp_path / "a.wav", (1.0, True)), lambda *one: said.append(one))
    phases = [phase for phase, _ in itertools.groupby(said, key=lambda one: one[0])]
    assert phases == ["preparing", "inferring", "encoding"]
    inferring = [done for phase, done, _ in said if phase == "inferring"]
    assert inferring == sorted(inferring)
    assert set(inferring) >= set(range(1, 26))
    assert all(done <= total for _, done, total in said)


def test_an_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="bbox_shift unknown"):
        Engine().prepare(Inputs(video=FACE, audio=SPEECH), {"bbox_shift": 3}, ignore)


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.2])
def test_the_shortest_speech_makes_a_video(tmp_path: Path, seconds: float) -> None:
    _, metrics = run(tmp_path, PHOTO, talking(tmp_path / "a.wav", (seconds, True)))
    assert metrics.frames == max(1, round(seconds * 25))


def test_the_jobs_other_fields_are_no_parameters(tmp_path: Path) -> None:
    fields = {"aspect_ratio": "1:1", "resolution": "512x512"}
    Engine().prepare(Inputs(video=PHOTO, audio=talking(tmp_path / "a.wav", (0.2, True)), fields=fields), {}, ignore)


@pytest.mark.parametrize(("inputs", "name"), [(Inputs(audio=SPEECH), "video_url"), (Inputs(video=FACE), "audio_url")])
def test_a_missing_input_is_named(inputs: Inputs, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is missing"):
        Engine().prepare(inputs, {}, ignore)


def test_one_engine_makes_many_jobs_alike(tmp_path: Path) -> None:
    engine, speech = Engine(), talking(tmp_path / "a.wav", (0.2, False), (0.4, True))
    engine.warm_up()
    for name in ("a.mp4", "b.mp4"):
        engine.generate(engine.prepare(Inputs(video=FACE, audio=speech), {}, ignore), tmp_path / name, ignore)
    alike = zip(pictures(tmp_path / "a.mp4"), pictures(tmp_path / "b.mp4"), strict=True)
    assert all(np.array_equal(one, other) for one, other in alike)


def test_the_way_of_a_face_is_smooth() -> None:
    finder = face.Finder()
    for picture in pictures(FACE):
        finder.look(picture)
    poses = finder.poses(25.0)
    assert poses.shape == (115, 4)
    assert np.abs(np.diff(poses[:, :2], n=2, axis=0)).max() < 1  # pixels a frame, a frame
    assert np.abs(np.degrees(poses[:, 3])).max() < 10


def test_quiet_speech_opens_the_mouth_as_wide_as_loud_speech() -> None:
    levels = np.array([-50.0, -20, -10, -30, -50] * 40, np.float32)
    loud, quiet = loudness.openings(levels, 50, 25.0), loudness.openings(np.maximum(levels - 12, -54), 50, 25.0)
    assert np.abs(loud - quiet).max() < 0.1
