"""Examinations for a program that goes on: in a process of their own, one at a time, and what was found is kept for a while.

A driver or a codec that crashes, or a disk that hangs for ever, costs that process only. Whoever asks waits for a time that
they name, or gets nothing; nobody waits in a row of any length.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from typing import Any

from doctor.examination import WHOLE_S, as_answer
from doctor.finding import Finding

#: How many may wait at once for an examination to end: a server has only so many threads.
MOST_WAITERS = 4
COMMAND = (sys.executable, "-m", "doctor")


class Doctor:
    """What the newest examination found. One a program; its threads share it."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._changed = threading.Condition()
        self._places = threading.BoundedSemaphore(MOST_WAITERS)
        self._is_examining = False
        self._found: dict[str, Any] | None = None
        self._ended = 0.0

    def found(self, good_s: float, wait_s: float) -> dict[str, Any] | None:
        """What was found within the last `good_s` seconds, as `examination.examine` gives it; else what is found now.

        None: the examination goes on, and is not done within `wait_s`, or too many wait for it already.
        """
        with self._changed:
            if (known := self._known(good_s)) is not None:
                return known
            if not self._is_examining:
                self._is_examining = True
                threading.Thread(target=self._examine, name="doctor", daemon=True).start()
            if not self._places.acquire(blocking=False):
                return None
            try:
                return self._found if self._changed.wait_for(lambda: not self._is_examining, wait_s) else None
            finally:
                self._places.release()

    def last(self) -> dict[str, Any] | None:
        """What was found last, however long ago; None if nobody has asked yet. Examines nothing."""
        with self._changed:
            return self._found

    def _known(self, good_s: float) -> dict[str, Any] | None:
        return self._found if self._found is not None and time.monotonic() - self._ended <= good_s else None

    def _examine(self) -> None:
        found = examined(self._command)
        with self._changed:
            self._found, self._ended, self._is_examining = found, time.monotonic(), False
            self._changed.notify_all()


def examined(command: tuple[str, ...]) -> dict[str, Any]:
    """One examination by a process of its own. That it crashed or took too long is a finding too."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    timer = threading.Timer(WHOLE_S, process.kill)
    timer.daemon = True
    timer.start()
    assert process.stdout  # noqa: S101 - it is a pipe
    with process.stdout as said:
        line = said.readline()  # not to its end: a check that hangs in the kernel may keep the process for ever
    timer.cancel()
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    try:
        return dict(json.loads(line))
    except ValueError:
        said_ = f"the examination ended without an answer, code {process.returncode}"
        do = "worker doctor on the machine; the log of admin may say more"
        return as_answer([Finding(name="doctor", level="fail", said=said_, do=do)])
