"""Whose face is whose over time, and which one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from errors import InvalidInput

pytest.importorskip("torch")

from inference.engines.musetalk import tracks
from inference.engines.musetalk.boxes import overlap

RATE = Fraction(25)


def square(x: float, y: float, side: float, score: float = 0.9) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2, score]


def seen(people: Sequence[Sequence[list[float] | None]], noise: float = 0.0) -> list[NDArray[np.float64]]:
    """What the face finder says of people, each a list of boxes over time: of two who overlap, only the likelier one."""
    random = np.random.default_rng(1)
    pictures = []
    for now in zip(*people, strict=True):
        boxes: list[NDArray[np.float64]] = []
        for person in sorted((one for one in now if one), key=lambda one: -one[4]):
            box = np.array(person)
            if all(overlap(box[None, :4], other[None, :4])[0] <= 0.3 for other in boxes):
                boxes.append(box)
        for box in boxes:
            box[:4] += random.normal(0, noise, 4) if noise else 0
        random.shuffle(boxes)
        pictures.append(np.array(boxes).reshape(-1, 5))
    return pictures


def places(edges: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(row).any() else float((row[0] + row[2]) / 2) for row in edges]


@pytest.mark.parametrize("front", [0.8, 0.95])
@pytest.mark.parametrize("speed", [4.0, 8.0, 15.0])
@pytest.mark.parametrize("other_stands", [False, True])
def test_two_faces_that_cross_keep_who_they_are(speed: float, front: float, other_stands: bool) -> None:
    frames = 60
    right = [square(400 + speed * (at - 30), 200, 100, 0.9) for at in range(frames)]
    left = [square(400 - (0 if other_stands else speed * (at - 30)), 205, 110, front) for at in range(frames)]
    found = seen([list(right), list(left)], noise=1.0)
    apart = sum(len(boxes) == 2 for boxes in found)
    assert apart < frames
    made = tracks.follow(found, RATE)
    for person in (right, left):
        where = (person[0][0] / 1280 + 50 / 1280, 0.25)
        edges = tracks.choose(made, where, frames, 1280, 800)
        known = [(place, (box[0] + box[2]) / 2) for place, box in zip(places(edges), person, strict=True) if place is not None]
        assert len(known) >= apart
        assert not np.isnan(edges[-1]).any()
        assert max(abs(place - truth) for place, truth in known) < 12


def test_a_face_that_stands_alone_is_there_in_every_picture() -> None:
    found = seen([[square(200, 200, 80) for _ in range(40)]], noise=2.0)
    made = tracks.follow(found, RATE)
    assert len(made) == 1
    assert not np.isnan(tracks.choose(made, "largest", 40, 640, 480)).any()


def test_the_largest_is_who_has_most_of_the_clip() -> None:
    near = [square(150, 200, 140) if at < 10 else None for at in range(50)]
    far = [square(450, 200, 80) for _ in range(50)]
    made = tracks.follow(seen([list(near), list(far)]), RATE)
    assert set(places(tracks.choose(made, "largest", 50, 640, 480))) == {450.0}


def test_faces_are_counted_from_the_left_in_the_first_picture_with_faces() -> None:
    people = [[None, None] + [square(x, 200, 80) for _ in range(9)] for x in (300, 100, 500)]
    people.append([None] * 5 + [square(20, 200, 40) for _ in range(6)])  # comes later
    made = tracks.follow(seen([list(person) for person in people]), RATE)
    for number, x in enumerate((100.0, 300.0, 500.0)):
        assert places(tracks.choose(made, number, 11, 640, 480))[2:] == [x] * 9
    with pytest.raises(InvalidInput) as refused:
        tracks.choose(made, 3, 11, 640, 480)
    assert refused.value.message == "params.face: got 3, must be 0 to 2: the first frame with a face has 3"


def test_a_point_names_the_face_around_it_or_else_the_nearest() -> None:
    people = [[square(x, 200, side) for _ in range(5)] for x, side in ((150, 100), (400, 200))]
    made = tracks.follow(seen([list(person) for person in people]), RATE)
    for point, x in (((0.2, 0.4), 150.0), ((310 / 640, 0.4), 400.0), ((0.0, 0.0), 150.0), ((1.0, 1.0), 400.0)):
        assert set(places(tracks.choose(made, point, 5, 640, 480))) == {x}


def test_a_face_that_leaves_and_comes_back_is_the_same_person_while_the_other_one_stays_the_other() -> None:
    chosen = [square(150, 200, 120) if not 30 <= at < 80 else None for at in range(120)]
    chosen[80:] = [square(250, 200, 120) for _ in range(40)]
    other = [square(500, 200, 90) for _ in range(120)]
    made = tracks.follow(seen([list(chosen), list(other)]), RATE)
    assert places(tracks.choose(made, 0, 120, 640, 480)) == [150.0] * 30 + [None] * 50 + [250.0] * 40


def test_after_a_cut_the_only_face_is_taken() -> None:
    found = seen([[square(150, 200, 100) for _ in range(20)] + [square(500, 120, 60) for _ in range(20)]])
    assert places(tracks.choose(tracks.follow(found, RATE), "largest", 40, 640, 480)) == [150.0] * 20 + [500.0] * 20


def test_a_fast_head_is_followed_where_boxes_do_not_overlap() -> None:
    found = seen([[square(100 + 70 * at, 200, 80) for at in range(8)]])
    assert len(tracks.follow(found, Fraction(8))) == 1


def test_one_picture_is_enough_and_none_is_refused() -> None:
    made = tracks.follow(seen([[square(100, 100, 50)]]), RATE)
    assert places(tracks.choose(made, "largest", 1, 640, 480)) == [100.0]
    with pytest.raises(InvalidInput, match="no face was found"):
        tracks.choose(tracks.follow([np.zeros((0, 5))] * 9, RATE), "largest", 9, 640, 480)
