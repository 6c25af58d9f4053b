"""The file of the orchestrator: older versions are brought up to date, newer ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqueue.database import connect
from orchestrator import database as sql
from orchestrator.sqlite import APPLICATION_ID, STEPS, VERSION, Sqlite, prepare
from orchestrator.transaction import WrongDatabase


def test_a_file_of_the_first_version_keeps_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    old = connect(path, create=True)
    old.execute(STEPS[0].read_text())
    old.execute(f"pragma application_id = {APPLICATION_ID}; pragma user_version = 1")
    old.execute("insert into job (id, engine, submission, created_at, updated_at) values ('j', 'musetalk', '{}', '', '')")
    old.close()
    prepare(path)
    prepare(path)
    assert [job["id"] for job in sql.jobs(Sqlite(path), None, 9)] == ["j"]
    assert sql.last_look(Sqlite(path), 30)[0] < 30


def test_a_file_of_a_newer_version_or_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    prepare(path)
    for pragma, says in ((f"user_version = {VERSION + 1}", "update the program"), ("application_id = 7", "another program")):
        connection = connect(path)
        connection.execute(f"pragma {pragma}")
        connection.close()
        with pytest.raises(WrongDatabase, match=says):
            prepare(path)
