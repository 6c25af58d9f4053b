"""The container's standard output, which must never hold anything up: whoever should read it may have stopped.

A log driver that is stuck, `worker up | less`, a terminal with Ctrl-S or behind a dead connection: a write would wait,
supervisord with it, and then each program at its next line. So a line that cannot go out in time is left out, and it is said
how many were.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat

#: How long a line waits for a reader, in seconds; once one has waited in vain, the next ones do not wait at all.
PATIENCE_S = 1.0
#: What a pipe or a socket takes whole once it takes anything.
PIECE_BYTES = 4096


class Outside(io.TextIOBase):
    """A text stream onto a file descriptor; `write` takes whole lines."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = _without_waiting(handle)
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLOUT)
        self._left_out = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left_out:
            words = (
                f"{self._left_out} lines were left out here, because nobody read them; the files in DATA_DIR/logs have them\n"
            )
            if not self._goes_out(f"\n{words}", 0.0):
                self._left_out += 1
                return len(text)
            self._left_out = 0
        if not self._goes_out(text, PATIENCE_S):
            self._left_out = 1
        return len(text)

    def _goes_out(self, text: str, patience_s: float) -> bool:
        data = text.encode(errors="replace")
        with contextlib.suppress(OSError):  # nobody will read any more: the work goes on, the log files have it
            while data:
                if not self._poll.poll(1000 * patience_s):
                    return False
                try:
                    data = data[os.write(self._handle, data[:PIECE_BYTES]) :]
                except BlockingIOError:
                    return False
        return True


def _without_waiting(handle: int) -> int:
    """For a terminal a handle of our own whose writes do not wait: it may take less than a line. Others share the one given."""
    if stat.S_ISCHR(os.fstat(handle).st_mode):
        with contextlib.suppress(OSError):  # another user's
            return os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return handle
