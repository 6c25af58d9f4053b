"""Sizes are taken down to what the model can do, or refused with what is allowed; the image covers the size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from errors import InvalidInput
from inference.engines.fastwan import shape
from jobqueue import intake


def made(width: Any, height: Any, frames: Any = 121, fit: Any = "crop", picture: Any = None) -> tuple[int, int, int]:
    found = shape.of({"width": width, "height": height, "num_frames": frames}, fit, picture)
    return found.width, found.height, found.frames


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((720, 1280, 121), (704, 1280, 121)),
        ((480, 848, 121), (480, 832, 121)),
        ((480, 832, 81), (480, 832, 81)),
        ((95, 64, 1), (64, 64, 1)),
        ((64, 64, 8), (64, 64, 5)),
    ],
)
def test_sizes_are_taken_down_to_what_the_model_can_do(asked: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert made(*asked) == expected


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ((63, 64, 121), "width: got 63, must be 64 to 1536"),
        ((-5, 64, 121), "width: got -5"),
        ((64, 4096, 121), "height: got 4096"),
        ((64, 64, 0), "num_frames: got 0, must be 1 to 241"),
        ((64, 64, 10_000), "num_frames: got 10000"),
        ((1280, 1280, 241), "at most 133 frames"),
        ((64.5, 64, 121), "width: got 64.5, must be an integer"),
        ((float("nan"), 64, 121), "width: got nan"),
        ((True, 64, 121), "width: got True"),
        (("64", 64, 121), "width: got '64'"),
        ((None, 64, 121), "width: got None"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(asked: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made(*asked)
    assert named in caught.value.message
    assert caught.value.stage == "validation"


@pytest.mark.parametrize(
    ("aspect", "area", "expected"),
    [
        ((9, 16), 704 * 1280, (704, 1248)),
        ((1, 1), 704 * 1280, (960, 928)),
        ((4, 5), 720 * 1280, (864, 1056)),
        ((3, 4), 480 * 832, (544, 704)),
        ((1, 1), 480 * 832, (640, 608)),
    ],
)
def test_auto_is_the_published_rule_of_area_and_aspect(aspect: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert shape.nearest(aspect[0] / aspect[1], area) == expected


def test_auto_takes_the_aspect_from_the_image() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    width, height, _ = made(480, 480, fit="auto", picture=picture)
    assert width / height == pytest.approx(3, rel=0.1)
    assert width * height <= 480 * 480


def test_auto_holds_at_most_as_many_pixels_whatever_the_aspect() -> None:
    assert made(64, 64, fit="auto", picture=np.zeros((121, 33, 3), np.uint8)) == (64, 64, 121)
    sides = (64, 96, 100, 480, 832, 1280, 1536)
    for aspect in (1e-4, 0.05, 0.27, 0.6, 1.0, 1.9, 3.7, 20.0, 1e4):
        for area in (width * height for width in sides for height in sides):
            width, height = shape.nearest(aspect, area)
            assert width * height <= area
            assert all(shape.MIN_SIDE <= side <= shape.MAX_SIDE and side % shape.BLOCK == 0 for side in (width, height))


@pytest.mark.parametrize("size", [(10, 5000), (5000, 10), (64, 64), (33, 100), (1000, 999)])
def test_the_image_covers_the_size_and_is_cut_in_the_middle(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 - 1 : height // 2 + 1] = 255
    got = shape.cover(picture, 64, 96)
    assert got.shape == (96, 64, 3)
    rows = got[:, :, 0].mean(axis=1)
    assert 30 <= int(np.argmax(rows)) <= 65
    assert rows.max() > 0


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    assert np.array_equal(shape.cover(picture, 64, 96), picture)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("width", shape.MIN_SIDE, shape.MAX_SIDE),
        ("height", shape.MIN_SIDE, shape.MAX_SIDE),
        ("num_frames", 1, shape.MAX_FRAMES),
    ],
)
def test_what_the_engine_would_refuse_is_refused_before_anything_is_fetched(name: str, least: int, most: int) -> None:
    job = {"musetalk_job_id": "a", "image_url": "https://a.example/i.png", "prompt": ""}
    for value, wrong in ((least - 1, True), (least, False), (most, False), (most + 1, True)):
        assert (name in intake.problems({**job, name: value}, "fastwan")) is wrong
