"""Runs uninterruptible calls in their own thread, so that a silent store delays neither a cancellation nor a stop."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from errors import Unavailable
from uploader.stores import OnBytes

#: Seconds without a byte sent after which the store counts as down. Longer than two attempts of one call may take.
SILENCE_S = 150.0
#: Seconds between checks of a running call: how soon a cancellation is noticed.
LOOK_EVERY_S = 0.2
#: Seconds that an unwanted call gets to clean up before it is abandoned.
CLEAN_UP_S = 0.5

T = TypeVar("T")


@dataclass
class Sent:
    """Shared by the call and its watcher: bytes sent so far, and whether they are still wanted."""

    done: int = 0
    wanted: bool = True


def watched(
    call: Callable[[Sent], T], size: int = 0, on_bytes: OnBytes = lambda done, total: None, *, silence_s: float = SILENCE_S
) -> T:
    """The call's result; on_bytes is called meanwhile, in the caller's thread.

    An exception from on_bytes ends the wait at once; the call sees `Sent.wanted` and ends by itself.
    Raises Unavailable after silence_s without a byte sent.
    """
    sent, context = Sent(), contextvars.copy_context()
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(context.run(call, sent))
        except BaseException as error:  # it is raised in the caller's thread
            answer.set_exception(error)

    threading.Thread(target=run, name="store", daemon=True).start()
    last, since = 0, time.monotonic()
    try:
        while not wait([answer], timeout=LOOK_EVERY_S).done:
            if sent.done != last:
                last, since = sent.done, time.monotonic()
            on_bytes(min(last, size), size)
            if time.monotonic() - since > silence_s:
                raise Unavailable(f"the store has been silent for {silence_s:.0f} s", stage="upload")
        return answer.result()
    finally:
        sent.wanted = False
        wait([answer], timeout=CLEAN_UP_S)
