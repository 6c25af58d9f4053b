"""Whoever listens for silence goes on whatever becomes of a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobqueue.database import CommitUncertain, Row
from orchestrator import database as sql
from orchestrator.jobs import Rules
from orchestrator.silence import Silence
from orchestrator.sqlite import Sqlite, prepare
from orchestrator.transaction import Transaction
from tests.patience import until


class Uncertain(Sqlite):
    """Commits fail at their end while it is `broken`; `looks` counts what is read."""

    looks, broken = 0, True

    def read(self, sql: str, /, **values: Any) -> list[Row]:
        self.looks += 1
        return super().read(sql, **values)

    def write(self, *args: Any, **named: Any) -> Any:
        if self.broken:
            raise CommitUncertain("the disk did not say")
        return super().write(*args, **named)


def test_a_commit_that_may_have_failed_does_not_end_the_listening(tmp_path: Path) -> None:
    prepare(tmp_path / "orchestrator.db")
    database = Uncertain(tmp_path / "orchestrator.db")
    Silence(database, Rules(silence_s=0.4, max_requeues=1, keep_days=1)).start()
    until(lambda: database.looks > 3)
    database.broken = False


@pytest.mark.parametrize(
    ("looked_s_ago", "seen_s_ago", "silent_s"),
    [
        pytest.param(10, 20, 20, id="a pause within the limit counts"),
        pytest.param(3600, 3620, 20, id="time without a listener does not"),
        pytest.param(-3600, -3600, 0, id="a clock that was set back does not leave signs in the future"),
    ],
)
def test_silence_is_time_in_which_somebody_listened(
    tmp_path: Path, looked_s_ago: float, seen_s_ago: float, silent_s: float
) -> None:
    prepare(tmp_path / "orchestrator.db")
    database = Sqlite(tmp_path / "orchestrator.db")

    def write(at: Transaction) -> None:
        sql.keep_beat(at, "w", "main", {})
        at("update worker set seen_at = :now - :ago", ago=seen_s_ago)
        at("update listening set looked_at = :now - :ago", ago=looked_s_ago)
        sql.listen(at, 15)

    database.write(write)
    assert silent_s <= sql.workers(database)[0]["silent_s"] < silent_s + 15
