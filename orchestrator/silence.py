"""Detects silence: jobs that their worker no longer confirms are requeued. Old jobs and keys are deleted on the way.

A thread checks every second or so, and every claim checks first, so that a job never waits for the thread. Time in which
nobody could hear a worker (all orchestrators stopped, the database away, the machine asleep) does not count against it: the
database holds when an orchestrator last listened, whichever that was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator import database as sql
from orchestrator import jobs
from orchestrator.transaction import ERRORS, Database

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between cleanings, and how many jobs one of them may delete; if there are more it goes on at the next look.
CLEANING_S = 60.0
MAX_FORGOTTEN = 100


class Silence:
    def __init__(self, database: Database, rules: jobs.Rules) -> None:
        self._database, self._rules = database, rules

    def look(self) -> None:
        """Requeue jobs that have been silent too long. Raises the database's errors."""
        ago_s, silent = sql.last_look(self._database, self._rules.silence_s)
        if silent or not 0 <= ago_s < self._rules.silence_s / 8:  # not at every claim: they would wait for each other
            jobs.take_back(self._database, self._rules, durable=silent)

    def start(self) -> None:
        """Look regularly, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="silence", daemon=True).start()

    def _run(self) -> None:
        pause_s = min(1.0, self._rules.silence_s / 8)
        next_cleaning = 0.0
        while True:
            time.sleep(pause_s)
            self._try(self.look)
            if time.monotonic() > next_cleaning and self._try(self._clean) != MAX_FORGOTTEN:
                next_cleaning = time.monotonic() + CLEANING_S

    def _clean(self) -> int:
        """The number of jobs that were deleted."""
        self._database.write(sql.drop_old_keys, durable=False)
        if not (keep_days := self._rules.keep_days):
            return 0
        return self._database.write(lambda at: sql.forget(at, keep_days, MAX_FORGOTTEN), durable=False)

    def _try(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except ERRORS as error:
            log.error("the database does not answer: %s", error)
            return None
