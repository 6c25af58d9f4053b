"""The box of a face: the published arithmetic to the pixel, and what we add over time and at the edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.engines.musetalk import boxes
from inference.engines.musetalk.boxes import Box

RATE = Fraction(25)


def face(left: float, right: float, chin: float, nose: float) -> NDArray[np.float64]:
    """68 points with these extremes; every other point lies between, higher than the chin."""
    points = np.full((68, 2), ((left + right) / 2, nose))
    points[0, 0], points[16, 0], points[8, 1] = left, right, chin
    points[28, 1], points[30, 1] = nose - 6, nose + 9
    return points


def test_the_box_is_as_high_above_the_nose_as_the_chin_is_below() -> None:
    assert boxes.of_points(face(100.9, 201.2, 300.7, 220.5)) == Box(100, 140, 201, 300)


def test_random_points_give_the_box_of_the_formula() -> None:
    random = np.random.default_rng(7)
    for _ in range(300):
        points = random.uniform(20, 400, (68, 2))
        shift = int(random.integers(-20, 21))
        x = [int(value) for value in points[:, 0]]
        y = [int(value) for value in points[:, 1]]
        y[29] += shift
        top = max(0, y[29] - (max(y) - y[29]))
        wanted = (min(x), top, max(x), max(y)) if max(y) > top else None
        made = boxes.of_points(points, shift)
        assert (made and (made.x1, made.y1, made.x2, made.y2)) == wanted


def test_a_shift_moves_the_upper_edge_twice_as_far() -> None:
    points = face(100, 200, 300, 220)
    assert boxes.of_points(points, 5) == Box(100, 150, 200, 300)
    assert boxes.of_points(points, -5) == Box(100, 130, 200, 300)
    assert points[29, 1] == 220, "the caller's points stay as they are"


def test_the_upper_edge_does_not_leave_the_picture() -> None:
    assert boxes.of_points(face(10, 90, 100, 40)) == Box(10, 0, 90, 100)


@pytest.mark.parametrize("points", [face(-4, 90, 100, 60), face(50, 50, 100, 60), np.full((68, 2), 60.0)])
def test_points_that_make_no_box_leave_it_to_the_face_finder(points: NDArray[np.float64]) -> None:
    assert boxes.of_points(points) is None
    assert boxes.of_points(points, found=(-3.2, 5.9, 40.1, 50.8, 0.99)) == Box(0, 5, 40, 50)


def test_the_margin_below_the_chin_ends_at_the_pictures_edge() -> None:
    assert boxes.with_margin(Box(1, 2, 30, 40), 10, 100) == Box(1, 2, 30, 50)
    assert boxes.with_margin(Box(1, 2, 30, 40), 10, 45) == Box(1, 2, 30, 45)


def test_whole_boxes_lie_in_the_picture_on_all_four_sides() -> None:
    edges = np.array([[-5.0, -7, 900, 800], [1.4, 2.6, 10.5, 20.5], [-50, 0, -2, 9], [np.nan] * 4])
    assert boxes.whole(edges, 640, 480) == [Box(0, 0, 640, 480), Box(1, 3, 10, 20), None, None]


def steps(count: int, step: float, speed: float) -> NDArray[np.float64]:
    """A face that moves evenly, as landmarks in whole steps see it: (count, 4)."""
    at = 100 + speed * np.arange(count)
    seen = np.round(at / step) * step
    return np.stack([seen, seen + 50, seen + 120, seen + 200], axis=1)


def test_the_steps_of_the_landmarks_go() -> None:
    rough = steps(100, 4.0, 0.7)
    calm = boxes.steady(rough, RATE)
    truth = 100 + 0.7 * np.arange(100)
    assert np.abs(np.diff(calm[:, 0], 2)).mean() < np.abs(np.diff(rough[:, 0], 2)).mean() / 5
    assert np.abs(calm[:, 0] - truth).max() < np.abs(rough[:, 0] - truth).max()


def test_even_and_bending_movement_stay_where_they_are() -> None:
    time = np.arange(60.0)
    path = 300 + 2 * time - 0.05 * time**2
    edges = np.stack([path, path, path + 200, path + 260], axis=1)
    assert np.allclose(boxes.steady(edges, RATE), edges, atol=1e-6)


def test_nothing_lags_whichever_way_time_runs() -> None:
    rough = steps(50, 4.0, 1.3) + np.random.default_rng(1).normal(0, 2, (50, 4))
    assert np.allclose(boxes.steady(rough[::-1], RATE)[::-1], boxes.steady(rough, RATE))


def test_a_cut_is_not_smeared() -> None:
    edges = np.concatenate([np.tile([10.0, 10, 60, 60], (20, 1)), np.tile([300.0, 200, 400, 300], (20, 1))])
    assert np.allclose(boxes.steady(edges, RATE), edges)


def test_a_short_gap_is_filled_and_a_long_one_is_not() -> None:
    edges = steps(60, 1.0, 1.0)
    edges[20:30] = np.nan
    filled = boxes.steady(edges, RATE)
    assert np.allclose(filled[:, 0], 100 + np.arange(60), atol=1e-6)
    edges[20:31] = np.nan
    left = boxes.steady(edges, RATE)
    assert np.isnan(left[20:31]).all()
    assert not np.isnan(left[:20]).any()
    assert not np.isnan(left[31:]).any()


def test_a_gap_between_two_places_or_at_an_end_stays_a_gap() -> None:
    edges = steps(30, 1.0, 0.0)
    edges[10:14], edges[14:], edges[:2] = np.nan, edges[14:] + 500, np.nan
    assert np.isnan(boxes.steady(edges, RATE)).any(axis=1).tolist() == [True] * 2 + [False] * 8 + [True] * 4 + [False] * 16


def test_one_picture_and_no_face_at_all_pass_through() -> None:
    one = np.array([[1.0, 2, 3, 4]])
    assert np.array_equal(boxes.steady(one, RATE), one)
    assert np.isnan(boxes.steady(np.full((5, 4), np.nan), RATE)).all()


def test_edges_of_points_are_the_published_box_without_cutting_off() -> None:
    points = np.stack([face(100.5, 201.5, 300.5, 220.5), np.full((68, 2), np.nan), face(-4, 90, 100, 40)])
    edges = boxes.edges_of_points(points, 2)
    assert np.allclose(edges[[0, 2]], np.array([[100.5, 144.5, 201.5, 300.5], [-4, -16, 90, 100]]))
    assert np.isnan(edges[1]).all()
