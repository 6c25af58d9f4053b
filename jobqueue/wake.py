"""Wake-ups between processes: a datagram after commit, so that a hand-over takes a millisecond and idling costs nothing.

The truth is always in the table: a lost wake-up delays work by at most the slow look behind it (SAFETY_POLL_S). Sockets are
in Linux's abstract namespace under the database's own random name: nothing to clean up, freed when the process dies.
"""

from __future__ import annotations

import contextlib
import socket
import threading

#: The slow look, in seconds: how long a wake-up that was lost can delay work.
SAFETY_POLL_S = 1.0

#: Who cares when a job enters a state.
LISTENERS = {
    "claimed": ("poller",),
    "ready": ("inference",),
    "generating": ("poller",),  # the GPU has work: is there room to claim ahead?
    "generated": ("uploader", "poller"),
    "succeeded": ("poller", "api"),
    "failed": ("poller", "api"),
    "cancelled": ("poller", "api"),
}
EVERYONE = ("poller", "inference", "uploader", "api", "guard")


class Bell:
    """What a loop sleeps on: rung by a datagram from another process, or by `ring` in this one."""

    def __init__(self, instance: str, program: str | None = None) -> None:
        self._instance = instance
        self._rung = 0
        self._condition = threading.Condition()
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        if program is not None:
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            receiver.bind(self._address(program))
            threading.Thread(target=self._listen, args=(receiver,), name="wake", daemon=True).start()

    def mark(self) -> int:
        """Take this before looking at the table, then give it to `wait`: nothing that rings in between is missed."""
        return self._rung

    def wait(self, mark: int, timeout_s: float = SAFETY_POLL_S) -> None:
        """Return when the bell has rung since `mark`, or after timeout_s seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung != mark, timeout_s)

    def ring(self) -> None:
        """Wake this process's loops."""
        with self._condition:
            self._rung += 1
            self._condition.notify_all()

    def poke(self, *programs: str) -> None:
        """Wake other programs; this process's own loops too."""
        self.ring()
        for program in programs:
            with contextlib.suppress(OSError):  # nobody listens, or its buffer is full: it will look by itself
                self._sender.sendto(b"!", self._address(program))

    def _listen(self, receiver: socket.socket) -> None:
        while True:
            receiver.recv(16)
            self.ring()

    def _address(self, program: str) -> str:
        return f"\0gpu-worker-{self._instance}-{program}"
