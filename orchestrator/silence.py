"""Detects silence: jobs that their worker no longer confirms are requeued.

A thread checks every second or so, and every claim checks first, so that a job never waits for the thread. Time in which we
could not hear anyone (our process stopped, the machine asleep) does not count against a worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from jobqueue import clock
from jobqueue.database import ERRORS, Database
from orchestrator import database as sql
from orchestrator import jobs

log = logging.getLogger(__name__)


class Silence:
    def __init__(self, database: Database, rules: jobs.Rules) -> None:
        self._database, self._rules = database, rules
        self._looked_at = clock.now()
        self._lock = threading.Lock()

    def look(self) -> None:
        """Requeue jobs that have been silent too long. Raises the database's errors."""
        with self._lock:
            now = clock.now()
            gap_s = now - self._looked_at
            if gap_s > self._rules.silence_s / 2:
                self._database.write(lambda at: sql.shift_clocks(at, gap_s))
                log.warning("this process was not running for %.1f s; that time does not count as silence", gap_s)
            self._looked_at = now
            if sql.any_unvouched(self._database, now - self._rules.silence_s):
                jobs.take_back(self._database, now - self._rules.silence_s, self._rules)

    def start(self) -> None:
        """Look regularly, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="silence", daemon=True).start()

    def _run(self) -> None:
        pause_s = min(1.0, self._rules.silence_s / 8)
        next_cleaning = 0.0
        while True:
            time.sleep(pause_s)
            if self._try(self.look) and clock.now() > next_cleaning:
                next_cleaning = clock.now() + 60
                self._try(lambda: self._database.write(sql.drop_old_keys, durable=False))

    def _try(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except ERRORS as error:
            log.error("the database does not answer: %s", error)
            return False
        return True
