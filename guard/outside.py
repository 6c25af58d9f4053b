"""The container's standard output, which must never block: its reader may have stopped.

With a stuck log driver, `worker up | less`, a terminal after Ctrl-S or a dead connection, a write would block, and with it
supervisord, and then each program at its next line. So a line that cannot be written in time is dropped, and the number of
dropped lines is logged.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat

#: How long a line waits for a reader, in seconds; after a timeout the following lines do not wait at all.
PATIENCE_S = 1.0
#: What a writable pipe or socket accepts at once.
PIECE_BYTES = 4096


class Outside(io.TextIOBase):
    """A text stream to a file descriptor; `write` takes complete lines."""

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
            words = f"{self._left_out} lines were left out here, because nobody read the output; they are in DATA_DIR/logs\n"
            if not self._goes_out(f"\n{words}", 0.0):
                self._left_out += 1
                return len(text)
            self._left_out = 0
        if not self._goes_out(text, PATIENCE_S):
            self._left_out = 1
        return len(text)

    def _goes_out(self, text: str, patience_s: float) -> bool:
        data = text.encode(errors="replace")
        with contextlib.suppress(OSError):  # nobody reads any more: the work continues, the log files have it
            while data:
                if not self._poll.poll(1000 * patience_s):
                    return False
                try:
                    data = data[os.write(self._handle, data[:PIECE_BYTES]) :]
                except BlockingIOError:
                    return False
        return True


def _without_waiting(handle: int) -> int:
    """For a terminal our own non-blocking handle: it may accept less than a line. Others share the one given."""
    if stat.S_ISCHR(os.fstat(handle).st_mode):
        with contextlib.suppress(OSError):  # another user's
            return os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return handle
