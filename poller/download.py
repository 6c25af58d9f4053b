"""Downloads one link to one file: streamed, limited, resumed, retried, and only from permitted addresses.

It knows nothing of jobs: the caller says what the file is for (`field`, the name of the job's input) and is asked whether to
continue. The probe decides whether the file is media.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from errors import InvalidInput, Unavailable
from jobqueue import pause
from poller.answer import Broken
from poller.partial import Part
from poller.transfer import Limits, Transfer

log = logging.getLogger(__name__)

#: How often the job and the clock are checked during a download; a cancellation takes effect well within a second.
TICK_S = 0.2
#: How long to wait for an aborted transfer.
GRACE_S = 0.5
#: An attempt that advances the file by this much resets the count of attempts.
PROGRESS_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """The result. `seconds` and `received_bytes` are of this call only, without pauses: a resumed file is larger."""

    size_bytes: int
    seconds: float
    received_bytes: int

    @property
    def speed_mbps(self) -> float:
        """Megabits per second."""
        return self.received_bytes * 8 / 1e6 / max(self.seconds, 1e-6)


def download(url: str, target: Path, limits: Limits, *, field: str, go_on: Callable[[], None]) -> Downloaded:
    """Download `url` to `target`, which exists only when it is complete.

    field   the input's name, with which every message begins
    go_on   called a few times per second in the calling thread, also between attempts; an exception from it aborts everything

    Raises InvalidInput (dead, refused, too large), Unreachable (failed after all attempts), Unavailable (not now); after the
    last two, and after an exception from go_on, the partial file stays next to `target`, and the next call resumes it if the
    server confirms that its file is unchanged.
    """
    part = Part(target, url)
    deadline = time.monotonic() + limits.total_s
    failures, furthest_bytes, seconds, received_bytes = 0, 0, 0.0, 0
    while True:
        transfer = Transfer(url, part, limits, field)
        began = time.monotonic()
        broken = _watch(transfer, part, limits, deadline, go_on)
        seconds += time.monotonic() - began
        received_bytes += transfer.received_bytes
        size_bytes = transfer.size_bytes
        if broken is None:
            return Downloaded(size_bytes=size_bytes, seconds=seconds, received_bytes=received_bytes)
        failures = 1 if size_bytes >= furthest_bytes + PROGRESS_BYTES else failures + 1
        furthest_bytes = max(furthest_bytes, size_bytes)
        _pause(_pause_s(transfer.host, broken, failures, limits, field), deadline, go_on)


def _watch(transfer: Transfer, part: Part, limits: Limits, deadline: float, go_on: Callable[[], None]) -> Broken | None:
    """Complete one attempt. None: the file is there; Broken: the next attempt may succeed; anything else is raised."""
    transfer.start()
    window_began, window_bytes = time.monotonic(), 0
    stalled: Broken | None = None
    try:
        while stalled is None and not transfer.done.wait(TICK_S):
            go_on()
            now = time.monotonic()
            if now > deadline:
                raise Unavailable(
                    f"{transfer.label} took longer than {limits.total_s:g} s", stage="download", host=transfer.host
                )
            if now - window_began >= limits.window_s:
                if transfer.received_bytes - window_bytes < limits.min_bytes_per_s * (now - window_began):
                    stalled = Broken(f"sent less than {limits.min_bytes_per_s:g} bytes per second for {limits.window_s:g} s")
                window_began, window_bytes = now, transfer.received_bytes
    finally:
        if not transfer.done.is_set():
            transfer.cut()
            transfer.done.wait(GRACE_S)
    if stalled is not None and transfer.error is not None:
        return stalled
    if isinstance(transfer.error, Broken):
        return transfer.error
    if isinstance(transfer.error, InvalidInput):
        part.discard()
    if transfer.error is not None:
        raise transfer.error
    if not transfer.done.is_set():  # there must never be two writers on one file
        raise Unavailable(f"{transfer.label} does not release its connection", stage="download", host=transfer.host)
    go_on()
    return None


def _pause_s(host: str, broken: Broken, failures: int, limits: Limits, field: str) -> float:
    """How long to wait before the next attempt. Raises the final error of `broken` if there is none."""
    too_long = broken.retry_after_s > limits.max_pause_s
    if failures >= limits.tries or too_long:
        why = f"it asked to wait {broken.retry_after_s:.0f} s" if too_long else f"tried {failures} times"
        why = "tried once" if failures == 1 and not too_long else why
        raise broken.final(f"{field}: {host} {broken.reason} ({why})", stage="download", host=host)
    pause_s = max(pause.before_try(failures, limits.pause_s, limits.max_pause_s), broken.retry_after_s)
    log.warning("%s: %s %s; retrying in %.1f s", field, host, broken.reason, pause_s)
    return pause_s


def _pause(pause_s: float, deadline: float, go_on: Callable[[], None]) -> None:
    """Wait, but not beyond the deadline: the next attempt then reports the timeout."""
    end = min(time.monotonic() + pause_s, deadline)
    while (left_s := end - time.monotonic()) > 0:
        go_on()
        time.sleep(min(TICK_S, left_s))
