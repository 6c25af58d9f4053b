"""A step of a stream in a thread of its own: bounded, and over when anything ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from inference.engines.musetalk.ahead import Ahead


def test_items_come_in_order_and_the_end_is_the_end() -> None:
    with Ahead(iter(range(100)), 3, "count") as coming:
        assert list(coming) == list(range(100))
        assert next(coming, None) is None


def test_no_more_is_made_than_depth_before_anyone_takes_it() -> None:
    made: list[int] = []
    third = threading.Event()

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with Ahead(count(), 3, "count") as coming:
        assert third.wait(5)
        assert made == [0, 1, 2]
        assert next(coming) == 0
        assert next(coming) == 1
    assert len(made) <= 5


def test_what_a_step_raises_is_raised_where_its_items_are_taken() -> None:
    def dies() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with Ahead(dies(), 2, "dies") as first, Ahead((2 * item for item in first), 2, "doubles") as coming:
        assert next(coming) == 2
        with pytest.raises(OSError, match="gone"):
            next(coming)


def test_leaving_closes_the_step_in_its_own_thread_and_ends_the_thread() -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with Ahead(endless(), 2, "endless") as coming:
        next(coming)
    assert [name.startswith("endless") for name in closed] == [True]
    assert not any(thread.name.startswith("endless") for thread in threading.enumerate())


def test_while_there_is_nothing_to_take_whoever_waits_is_asked_and_can_leave() -> None:
    release = threading.Event()

    def slow() -> Iterator[int]:
        release.wait(10)
        yield 1

    asked: list[int] = []

    def waiting() -> None:
        asked.append(1)
        if len(asked) == 3:
            release.set()
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"), Ahead(slow(), 1, "slow", waiting) as coming:
        next(coming)


def test_a_step_whose_own_time_is_over_says_so() -> None:
    def late() -> Iterator[int]:
        raise TimeoutError("the step's own")
        yield 1

    with pytest.raises(TimeoutError, match="own"), Ahead(late(), 1, "late", lambda: None) as coming:
        next(coming)
