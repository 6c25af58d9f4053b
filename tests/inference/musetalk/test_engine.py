"""The whole engine on small random weights: from a person's video and speech to the finished file."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engine import Inputs, Metrics, Options  # noqa: E402
from inference.engines.musetalk import Engine  # noqa: E402
from media import video, write  # noqa: E402
from media.still import Picture  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402
from tests.media import files  # noqa: E402

#: The steady networks of the fakes see a face in every bright picture; this is its size in the tests.
SIDE = 128

Say = Callable[..., tuple[Path, Metrics]]


def ignore(phase: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(weights: Path) -> Engine:
    torch.set_num_threads(2)
    made = Engine()
    made.load(weights, "cpu")
    made.warm_up()
    return made


@pytest.fixture
def say(engine: Engine, tmp_path: Path) -> Say:
    """Runs a job: the file it made and what it says about it."""

    def run(source: Path, speech: Path, said: dict[str, Any] | None = None, **fields: Any) -> tuple[Path, Metrics]:
        prepared = engine.prepare(Inputs(video=source, audio=speech, fields=fields), said or {}, ignore)
        return tmp_path / "out.mp4", engine.generate(prepared, tmp_path / "out.mp4", ignore)

    return run


def clip(path: Path, brightness: list[int], side: int = SIDE, rate: Fraction = Fraction(25)) -> Path:
    """A video of plain pictures; the fakes see a face in those that are bright."""
    pictures = (np.full((side, side, 3), level, np.uint8) for level in brightness)
    write.write(path, pictures, rate=rate, speech=None)
    return path


def tone(path: Path, seconds: float) -> Path:
    return files.sound(path, seconds=seconds)


def pictures(path: Path) -> list[Picture]:
    return list(video.pictures(video.open_clip(path)))


def test_a_job_becomes_a_video_of_the_speechs_length_with_a_new_face_in_it(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200] * 6)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.4))
    assert (metrics.frames, metrics.fps, metrics.width, metrics.height) == (10, 25.0, SIDE, SIDE)
    assert metrics.extra["frames_without_face"] == 0
    made = pictures(path)
    assert len(made) == 10
    assert all(np.abs(picture.astype(int) - 200).max() > 30 for picture in made)


def test_pictures_without_a_face_pass_through_and_are_counted(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200] * 3 + [20] * 14 + [200] * 3)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.8), {"smooth": False})
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (20, 14)
    changed = [bool(np.abs(picture.astype(int) - np.median(picture)).max() > 30) for picture in pictures(path)]
    assert changed == [True] * 3 + [False] * 14 + [True] * 3


def test_a_known_video_is_not_looked_at_again(weights: Path, tmp_path: Path) -> None:
    engine = Engine()
    engine.configure(Options(batch_size=3, cache_dir=tmp_path / "avatars", cache_bytes=1 << 24))
    engine.load(weights, "cpu")
    engine.warm_up()
    source, outputs, met = clip(tmp_path / "a.mp4", [200] * 6), [], []
    for number in range(2):
        prepared = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "a.wav", 0.4)), {}, ignore)
        output = tmp_path / f"{number}.mp4"
        met.append(engine.generate(prepared, output, ignore).extra)
        outputs.append(output.read_bytes())
    assert [extra["avatar_cache"] for extra in met] == ["miss", "hit"]
    assert [extra["batch_size"] for extra in met] == [3, 3]
    assert outputs[0] == outputs[1]
