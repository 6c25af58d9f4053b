"""The telemetry loop: records GPU readings once a second, for the page's charts. Nothing else depends on it.

On a machine without a card or driver, it backs off.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobqueue import clock
from jobqueue.database import ERRORS
from jobqueue.samples import Writing
from telemetry import gpu

log = logging.getLogger(__name__)

EVERY_S = 1.0
#: The longest interval between checks for a card where there is none, in seconds.
SELDOM_S = 60.0

#: Temporary errors when writing samples.
TROUBLE: tuple[type[Exception], ...] = (*ERRORS, OSError)


def loop(path: Path, gpus: str, read: Callable[[str], list[dict[str, Any]]] = gpu.gauges) -> Callable[[threading.Event], None]:
    """The loop that records samples of the cards in `gpus` to the file `path`."""

    def sample(stop: threading.Event) -> None:
        writing: Writing | None = None
        failing, pause_s, due = False, EVERY_S, clock.now()
        while not stop.is_set():
            cards = read(gpus)
            pause_s = EVERY_S if cards else min(2 * pause_s, SELDOM_S)
            try:
                if cards:
                    writing = writing or Writing(path)
                    writing.add(cards)
                failing = False
            except TROUBLE as error:
                if not failing:
                    log.warning("GPU readings could not be recorded: %s", error)
                if writing is not None:
                    writing.close()
                failing, writing, pause_s = True, None, SELDOM_S
            due = max(due + pause_s, clock.now())  # after a slow reading: at once, without catching up later
            stop.wait(due - clock.now())

    return sample
