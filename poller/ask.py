"""Checks that unfinished jobs are still ours after the whole container was frozen (docker pause, machine sleep).

After 30 s of silence the orchestrator gives our jobs to others. So the GPU waits (the `hold` flag) until each job has been
confirmed by a running report; a job that is no longer ours is cancelled before more GPU time is spent on it.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.queue import Queue
from poller.report import Reporting

log = logging.getLogger(__name__)

#: How often the clock is checked, and what counts as silence, in seconds.
TICK_S = 1.0
SILENCE_S = 30.0
#: After this long without an answer the work continues, in seconds, even if this process has died.
PATIENCE_S = 60.0
#: Seconds between attempts.
RETRY_S = 2.0


class Ask:
    """The loop: notices that the clock jumped, then asks."""

    def __init__(self, queue: Queue, control: Control, reporting: Reporting) -> None:
        self._queue, self._control, self._reporting = queue, control, reporting

    def loop(self, stop: threading.Event) -> None:
        """Watch the clock until `stop` is set."""
        with contextlib.suppress(*ERRORS):  # otherwise it expires
            self._let_go()  # the hold of a previous run that died while asking
        last = clock.now()
        while not stop.wait(TICK_S):
            jumped_s, last = clock.now() - last, clock.now()
            if jumped_s < SILENCE_S:
                continue
            log.warning("this container was frozen for %.0f s; checking its unfinished jobs", jumped_s)
            try:
                self.ask(stop)
            except ERRORS as error:
                log.warning("unfinished jobs could not be checked: %s", error)
            last = clock.now()

    def ask(self, stop: threading.Event) -> None:
        """Hold the GPU, check every unfinished job, cancel those that are gone, and release the GPU."""
        deadline = clock.now() + PATIENCE_S
        self._control.put_up("hold", "the clock jumped: checking unfinished jobs", "poller", until=PATIENCE_S)
        try:
            left = [job.id for job in self._queue.unfinished() if job.source != "local"]
            while left and clock.now() < deadline:
                left = [job_id for job_id in left if clock.now() >= deadline or not self._answered(job_id)]
                if left and stop.wait(RETRY_S):
                    return
            if left:
                log.warning("the orchestrator did not answer about %d jobs; they continue", len(left))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._control.take_down("hold")
        self._queue.bell.poke("inference")

    def _answered(self, job_id: str) -> bool:
        """Check one job, and cancel it if it is gone. False if there was no answer."""
        answer = self._reporting.tell_running(job_id)
        if answer.kind == "gone" and self._queue.cancel(job_id, f"gone: {answer.text}"):
            log.info("job %.200s is no longer ours: %s", job_id, answer.text)
        return answer.kind != "down"
