"""People who are not still before the camera: two who cross, one who turns away, one in a very large picture. What looks are
stand-ins (tests/fakes/stand_ins.py) that really find faces, and a pattern is painted instead of a mouth, so that it shows whose
mouth was moved."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engine import Inputs, Metrics  # noqa: E402
from inference.engines.musetalk import landmarks  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from inference.engines.musetalk.stream import Job  # noqa: E402
from media import video, write  # noqa: E402
from media.still import Picture  # noqa: E402
from tests import memory  # noqa: E402
from tests.fakes import stand_ins  # noqa: E402
from tests.inference.musetalk.engines import Say, changed, clip, ignore, loaded, pictures, run, tone, use  # noqa: E402

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "face.mp4"
#: The pictures that people are put into, and how high a person is.
WIDTH, HEIGHT, TALL = 640, 240, 200


@pytest.fixture(scope="module")
def person() -> Picture:
    """The sample's person without colours, TALL pixels high."""
    first = next(iter(video.pictures(video.open_clip(SAMPLE))))
    grey = cv2.cvtColor(first, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (grey.shape[1] * TALL // grey.shape[0], TALL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB), np.uint8)


def scene(*people: tuple[Picture, int]) -> Picture:
    """A grey picture with these people, the middle of each at an x; the last one stands in front."""
    made = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for figure, middle in people:
        left = middle - figure.shape[1] // 2
        made[20 : 20 + TALL, left : left + figure.shape[1]] = figure
    return made


def spoken(engine: Engine, folder: Path, scenes: list[Picture], rate: int, **said: Any) -> tuple[Job, Metrics, list[Picture]]:
    """The scenes as a video put through the engine: the job, its metrics and the new pictures."""
    write.write(folder / "in.mp4", iter(scenes), rate=Fraction(rate), speech=None)
    speech = tone(folder / "a.wav", len(scenes) / rate)
    prepared = engine.prepare(Inputs(video=folder / "in.mp4", audio=speech), said, ignore)
    metrics = engine.generate(prepared, folder / "out.mp4", ignore)
    return prepared.job, metrics, pictures(folder / "out.mp4")


def painted(picture: Picture) -> float | None:
    """The middle, across, of what has the pattern's colours, which nobody has; None if nothing has."""
    columns = np.flatnonzero((np.ptp(picture.astype(int), axis=2) > 120).sum(axis=0) > 5)
    return float(columns[0] + columns[-1]) / 2 if len(columns) else None


@pytest.mark.parametrize("face", [0, 1], ids=["in front", "behind"])
def test_of_two_who_cross_the_chosen_one_speaks_before_and_after_and_never_the_other(
    painting: Engine, person: Picture, tmp_path: Path, face: int
) -> None:
    other = np.ascontiguousarray(person[:, ::-1])
    right = [round(130 + 380 * at / 23) for at in range(24)]
    left = right[::-1]
    scenes = [scene((other, theirs), (person, ours)) for ours, theirs in zip(right, left, strict=True)]
    _, metrics, made = spoken(painting, tmp_path, scenes, 25, face=face, smooth=False)
    assert len(made) == 24
    way = (right, left)[face]
    found = [(spot, truth) for picture, truth in zip(made, way, strict=True) if (spot := painted(picture)) is not None]
    assert metrics.extra["frames_without_face"] == 24 - len(found) < 12
    assert max(abs(spot - truth) for spot, truth in found) < 12
    assert (found[0][1], found[-1][1]) == (way[0], way[-1])


@pytest.mark.parametrize(("away", "silent"), [(8, 8), (3, 0)])
def test_who_turns_away_is_left_alone_and_a_moment_of_it_is_bridged(
    painting: Engine, person: Picture, tmp_path: Path, away: int, silent: int
) -> None:
    profile = np.asarray(cv2.resize(person, (person.shape[1] // 4, TALL)), np.uint8)  # nothing that the finder takes for a face
    scenes = [scene((figure, 320)) for figure in [person] * 6 + [profile] * away + [person] * 6]
    _, metrics, made = spoken(painting, tmp_path, scenes, 10)
    speaks = [painted(picture) is not None for picture in made]
    assert metrics.extra["frames_without_face"] == silent
    assert speaks == [True] * 6 + [silent == 0] * away + [True] * 6


class Turning(stand_ins.Pointer):
    """Sees a face that is narrower from picture to picture, as one that turns to the side is."""

    def __init__(self, widths: list[float]) -> None:
        super().__init__()
        self._widths = iter(widths)

    def forward(self, pictures: Any) -> Any:
        across, down = super().forward(pictures)
        for one in across[: len(pictures) // 2]:
            at = one[landmarks.FACE].argmax(dim=1)
            middle = at.float().mean()
            one[landmarks.FACE] = 0
            narrowed = (middle + (at - middle) * next(self._widths)).long()
            one[torch.arange(landmarks.FACE.start, landmarks.FACE.stop), narrowed] = 1.0
        return across, down


def test_a_face_seen_from_the_side_is_a_narrow_one(weights: Path, tmp_path: Path) -> None:
    widths = [1.0, 0.8, 0.6, 0.4, 0.25, 0.25, 0.4, 0.6, 0.8, 1.0]
    engine = loaded(weights)
    use(engine, pose=Turning(widths))
    source = clip(tmp_path / "in.mp4", [200] * 10)
    prepared = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "a.wav", 0.4)), {"smooth": False}, ignore)
    found = [prepared.job.avatar.box(number).width for number in range(10)]
    assert [width / found[0] for width in found] == pytest.approx(widths, abs=0.1)
    metrics = engine.generate(prepared, tmp_path / "out.mp4", ignore)
    assert metrics.extra["frames_without_face"] == 0
    assert all(changed(picture) for picture in pictures(tmp_path / "out.mp4"))


class Astray(stand_ins.Pointer):
    """Sees the points of a face around a place in its picture, in the first picture beyond what the camera saw."""

    def forward(self, pictures: Any) -> Any:
        across, down = torch.zeros(len(pictures), 133, 576), torch.zeros(len(pictures), 133, 768)
        for number in range(len(pictures) // 2):
            for point in range(133):
                x, y = (560, 300) if float(pictures[number, :, 192, 144].mean()) > 1.3 else (280, 400)
                across[number, point, x + point % 9] = down[number, point, y + point % 17 * 4] = 10
        return across, down


def test_points_beyond_the_picture_are_no_face_in_parity(weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights)
    use(engine, pose=Astray())
    source = clip(tmp_path / "in.mp4", [240, 160, 240, 160])
    metrics = run(engine, tmp_path / "out.mp4", source, tone(tmp_path / "a.wav", 0.16), {"parity": True})
    assert metrics.extra["frames_without_face"] == 2
    assert [changed(picture) for picture in pictures(tmp_path / "out.mp4")] == [False, True, False, True]


@pytest.mark.slow
@memory.counted
def test_8k_is_made_within_bounds(say: Say, tmp_path: Path) -> None:
    width, height, done = 7680, 4320, []

    def bright_in_the_middle() -> Iterator[Picture]:
        for _ in range(3):
            picture = np.full((height, width, 3), 60, np.uint8)
            picture[2000:2200, 3700:3900] = 230  # a face, to the fakes
            yield picture

    write.write(tmp_path / "a.mp4", bright_in_the_middle(), rate=Fraction(25), speech=None)
    speech = tone(tmp_path / "a.wav", 0.12)
    assert memory.peak_of(lambda: done.append(say(tmp_path / "a.mp4", speech))) < 2 << 30
    [(path, metrics)] = done
    assert (metrics.frames, metrics.width, metrics.height, metrics.extra["frames_without_face"]) == (3, width, height, 0)
    for picture in video.pictures(video.open_clip(path)):
        assert np.abs(picture[::4, ::4].astype(int) - 60).max() > 30
