"""Examinations for a long-running program: in a separate process, one at a time, with a briefly cached result.

A driver or codec that crashes, or a disk that hangs forever, costs only that process. A caller waits for at most the time
that it names; the number of waiting callers is limited.
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

#: Callers that may wait for an examination at once: a server has a limited number of threads.
MAX_WAITERS = 4
COMMAND = (sys.executable, "-m", "doctor")


class Doctor:
    """The result of the newest examination. One per program, shared by its threads."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._changed = threading.Condition()
        self._places = threading.BoundedSemaphore(MAX_WAITERS)
        self._is_examining = False
        self._found: dict[str, Any] | None = None
        self._ended = 0.0

    def found(self, good_s: float, wait_s: float) -> dict[str, Any] | None:
        """The result of `examination.examine` from the last `good_s` seconds, otherwise a new one.

        None: the examination did not finish within `wait_s` (it continues), or too many callers are waiting already.
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
        """The last result, however old; None if there is none yet. Examines nothing."""
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
    """One examination in a separate process. A crash or timeout is a finding too."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    timer = threading.Timer(WHOLE_S, process.kill)
    timer.daemon = True
    timer.start()
    assert process.stdout  # noqa: S101 - it is a pipe
    with process.stdout as said:
        line = said.readline()  # not to EOF: a check that hangs in the kernel may keep the process alive forever
    timer.cancel()
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    try:
        return dict(json.loads(line))
    except ValueError:
        said_ = f"the examination exited without a result, code {process.returncode}"
        do = "run worker doctor on the machine; see also the log of admin"
        return as_answer([Finding(name="doctor", level="fail", said=said_, do=do)])
