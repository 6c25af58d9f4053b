"""Wake-ups between processes: a datagram after commit, so that a hand-over takes a millisecond and idling costs nothing.

The table is authoritative: a lost wake-up delays work by at most the backup poll (SAFETY_POLL_S). Sockets are in Linux's
abstract namespace under the database's own random name: nothing to clean up, released when the process dies.
Nobody listens while all are busy: one of the waiting loops watches the socket for all. A dedicated thread would take the
interpreter from the working one at every datagram (a fifth of the queue's throughput).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref

#: The backup poll, in seconds: how long a lost wake-up can delay work.
SAFETY_POLL_S = 1.0

#: Who cares when a job enters a state.
LISTENERS = {
    "claimed": ("poller",),
    "ready": ("inference",),
    "generating": ("poller",),  # the GPU has work: is there capacity to prefetch?
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
        self._watched = False
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._nudge).atexit = False  # a number alone is never given back
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if program is not None:
            self._socket.bind(self._address(program))
        self._poll = select.poll()
        for handle in (self._socket.fileno(), self._nudge):
            self._poll.register(handle, select.POLLIN)

    def mark(self) -> int:
        """Take this before reading the table, then pass it to `wait`: no ring in between is missed."""
        return self._rung

    def wait(self, mark: int, timeout_s: float = SAFETY_POLL_S) -> None:
        """Return when the bell has rung since `mark`, or after timeout_s seconds."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            while self._rung == mark and (left_s := deadline - time.monotonic()) > 0:
                if self._watched:
                    self._condition.wait(left_s)
                else:
                    self._watch(left_s)

    def ring(self) -> None:
        """Wake this process's loops."""
        with self._condition:
            self._rung += 1
            if self._watched:
                os.eventfd_write(self._nudge, 1)
            self._condition.notify_all()

    def poke(self, *programs: str) -> None:
        """Wake other programs; this process's own loops too."""
        self.ring()
        for program in programs:
            with contextlib.suppress(OSError):  # nobody listens, or its buffer is full: it will poll
                self._socket.sendto(b"!", self._address(program))

    def _watch(self, timeout_s: float) -> None:
        """Watch the socket for all who wait, with the condition held but while watching."""
        self._watched = True
        self._condition.release()
        try:
            heard = dict(self._poll.poll(1000 * timeout_s))
        finally:
            self._condition.acquire()
            self._watched = False
            self._condition.notify_all()  # one of the others watches now
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._nudge)
        if self._socket.fileno() in heard:
            self._rung += 1
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(16)

    def _address(self, program: str) -> str:
        return f"\0gpu-worker-{self._instance}-{program}"
