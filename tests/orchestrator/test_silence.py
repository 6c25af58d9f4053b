"""Whoever listens for silence goes on whatever becomes of a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobqueue.database import CommitUncertain, Database, Row
from orchestrator.database import prepare
from orchestrator.jobs import Rules
from orchestrator.silence import Silence
from tests.patience import until


class Uncertain(Database):
    """Commits fail at their end while it is `broken`; `looks` counts what is read."""

    looks, broken = 0, True

    def read(self, sql: str, *args: Any, **named: Any) -> list[Row]:
        self.looks += 1
        return super().read(sql, *args, **named)

    def write(self, *args: Any, **named: Any) -> Any:
        if self.broken:
            raise CommitUncertain("the disk did not say")
        return super().write(*args, **named)


def test_a_commit_that_may_have_failed_does_not_end_the_listening(tmp_path: Path) -> None:
    prepare(tmp_path / "orchestrator.db")
    database = Uncertain(tmp_path / "orchestrator.db")
    Silence(database, Rules(silence_s=0.4, most_requeues=1)).start()
    until(lambda: database.looks > 3)
    database.broken = False
