"""A file that is new, ours, newer, someone else's or broken."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from jobqueue import migrations
from jobqueue.database import Database, check_library
from jobqueue.job import GENERATE
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.jobqueue.conftest import arrival, ready


def change(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def test_preparing_twice_keeps_what_is_there(path: Path) -> None:
    Queue(Database(path)).add(arrival())
    assert migrations.prepare(path) is None
    migrations.check_version(path)
    assert Queue(Database(path)).counts() == {"claimed": 1}


def test_a_file_from_a_newer_version_is_refused(path: Path) -> None:
    change(path, "pragma user_version = 99")
    with pytest.raises(migrations.WrongDatabase, match="newer worker"):
        migrations.prepare(path)
    with pytest.raises(migrations.WrongDatabase, match="version 99"):
        migrations.check_version(path)


def test_a_file_of_an_older_version_is_brought_forward_with_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    for step in migrations.STEPS[:2]:
        change(path, step.read_text())
    change(path, f"pragma application_id = {migrations.APPLICATION_ID}; pragma user_version = 2")
    old = "insert into control values ('instance', 'old', ''), ('boot', 'old', '')"
    change(path, old)
    Queue(Database(path)).add(arrival())
    migrations.prepare(path)
    migrations.check_version(path)
    assert Queue(Database(path)).counts() == {"claimed": 1}
    assert Outbox(Database(path)).reports("a") == []


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    change(path, "create table photos (id)")
    with pytest.raises(migrations.WrongDatabase, match="another program"):
        migrations.prepare(path)


@pytest.mark.parametrize("where", [0, 4096])
def test_a_corrupt_file_is_set_aside_under_a_dated_name_and_an_empty_queue_begun(path: Path, where: int) -> None:
    queue = Queue(Database(path))
    for number in range(50):
        queue.add(arrival(f"j{number}"))
    queue.database.read("pragma wal_checkpoint(truncate)")
    queue.database.close()
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xde\xad\xbe\xef" * 2048)
    aside = migrations.prepare(path)
    assert aside is not None
    assert (aside / "jobs.db").exists()
    assert aside.name.startswith("corrupt-20")
    assert Queue(Database(path)).counts() == {}


def test_of_corrupt_files_the_newest_are_kept(path: Path) -> None:
    older = [path.parent / f"corrupt-2026010{day}T030405Z-{day}{day}{day}{day}" for day in range(1, 5)]
    for folder in older:
        folder.mkdir()
        (folder / "jobs.db").touch()
    path.write_bytes(b"no database" * 1000)
    aside = migrations.prepare(path)
    assert sorted(path.parent.glob("corrupt-*")) == [*older[-2:], aside]


def test_a_program_does_not_start_without_a_queue(tmp_path: Path) -> None:
    with pytest.raises(migrations.WrongDatabase, match="worker up"):
        migrations.check_version(tmp_path / "jobs.db")


def test_after_a_boot_of_the_machine_the_boot_clocks_values_begin_anew(path: Path) -> None:
    queue = Queue(Database(path))
    ready(queue)
    job = queue.take(GENERATE, "inference/1")
    assert job is not None
    queue.put_back(GENERATE, job, 10**9)
    change(path, "update control set value = 'another boot' where name = 'boot'")
    migrations.prepare(path)
    assert queue.take(GENERATE, "inference/1") is not None


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ("3.40.1", False),
        ("3.51.2", False),
        ("3.52.0", False),
        ("3.51.3", True),
        ("3.54.1", True),
        ("3.50.7", True),
        ("3.44.6", True),
    ],
)
def test_an_sqlite_that_can_corrupt_the_file_is_refused(version: str, sound: bool) -> None:
    if sound:
        check_library(version)
    else:
        with pytest.raises(RuntimeError, match="can corrupt"):
            check_library(version)
