"""Calls that cannot be interrupted, and the thread that waits for them."""

from __future__ import annotations

import threading

import pytest

from errors import LostJob, Unavailable
from uploader.stores.watched import Sent, watched


def test_the_calls_result_and_its_error_reach_the_caller() -> None:
    def fail(sent: Sent) -> int:
        raise KeyError("apiInfo")

    assert watched(lambda sent: 7) == 7
    with pytest.raises(KeyError, match="apiInfo"):
        watched(fail)


def test_on_bytes_is_asked_in_the_callers_thread_and_told_what_was_sent() -> None:
    told = threading.Event()
    heard: list[tuple[int, int, int]] = []

    def call(sent: Sent) -> None:
        sent.done = 5
        told.wait(20)

    def on_bytes(done: int, total: int) -> None:
        heard.append((done, total, threading.get_ident()))
        told.set()

    watched(call, 10, on_bytes)
    assert heard[0] == (5, 10, threading.get_ident())


def test_what_on_bytes_raises_ends_the_wait_and_tells_the_call() -> None:
    ended = threading.Event()

    def call(sent: Sent) -> None:
        while sent.wanted:
            ended.wait(0.01)
        ended.set()

    def lost(done: int, total: int) -> None:
        raise LostJob

    with pytest.raises(LostJob):
        watched(call, 1, lost)
    assert ended.wait(20)


def test_a_call_in_which_nothing_moves_counts_as_a_store_that_is_down() -> None:
    release = threading.Event()
    with pytest.raises(Unavailable, match="silent"):
        watched(lambda sent: release.wait(60), silence_s=0.1)
    release.set()
