"""Ended jobs are deleted after --keep-days, with all that belongs to them; nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator import database as sql
from orchestrator import jobs, postgres, sqlite
from orchestrator.silence import Silence
from orchestrator.transaction import Database, Transaction
from tests.orchestrator.server import ON_BOTH, TALKING_HEAD, running
from tests.patience import until


@pytest.fixture
def database(place: Path | str) -> Database:
    """Prepared, on either database."""
    if isinstance(place, str):
        postgres.prepare(place)
        return postgres.Postgres(place)
    sqlite.prepare(place / "orchestrator.db")
    return sqlite.Sqlite(place / "orchestrator.db")


def end(database: Database, job_id: str, days_ago: float) -> None:
    """A job that ended then, with a report."""
    then = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def write(at: Transaction) -> None:
        sql.add_job(at, job_id, None, TALKING_HEAD)
        sql.keep_report(at, job_id, "progress", {"worker_id": "w"}, "superseded")
        sql.finish(at, job_id, "cancelled", jobs.outcome(error="cancelled"))
        at("update job set finished_at = :then where id = :id", then=then, id=job_id)

    database.write(write)


def forget(database: Database, most: int = 100) -> int:
    return database.write(lambda at: sql.forget(at, 30, most))


@ON_BOTH
def test_a_job_is_forgotten_with_its_events_and_reports_when_it_ended_long_ago(database: Database) -> None:
    end(database, "old", 30.1)
    end(database, "recent", 29.9)
    database.write(lambda at: sql.add_job(at, "waiting", None, TALKING_HEAD))
    database.write(lambda at: at("update job set created_at = '2001-01-01T00:00:00.000Z' where id = 'waiting'"))
    assert forget(database) == 1
    assert {row["id"] for row in sql.jobs(database, None, 9)} == {"recent", "waiting"}
    for table in ("event", "report"):
        assert {row["job"] for row in database.read(f"select job from {table}")} <= {"recent", "waiting"}


@ON_BOTH
def test_jobs_are_forgotten_in_batches_the_oldest_first(database: Database) -> None:
    for days in (31, 33, 32):
        end(database, f"j{days}", days)
    assert [forget(database, 2), forget(database, 2)] == [2, 1]
    assert sql.jobs(database, None, 9) == []


@ON_BOTH
def test_a_report_on_an_unknown_job_is_forgotten_by_its_own_age(database: Database) -> None:
    def report(at: Transaction) -> None:
        sql.keep_report(at, "old", "progress", {}, "unknown")
        sql.keep_report(at, "recent", "progress", {}, "unknown")

    database.write(report)
    database.write(lambda at: at("update report set at = '2001-01-01T00:00:00.000Z' where job = 'old'"))
    forget(database)
    assert [row["job"] for row in database.read("select job from report")] == ["recent"]


def test_the_program_forgets_what_is_older_than_keep_days(tmp_path: Path) -> None:
    sqlite.prepare(tmp_path / "orchestrator.db")
    for job_id, days in (("old", 36), ("recent", 34)):
        end(sqlite.Sqlite(tmp_path / "orchestrator.db"), job_id, days)
    with running(tmp_path, "--keep-days", "35", "--silence-s", "0.4") as server:
        until(lambda: server.ask("GET", "/jobs/old").status_code == 404)
        assert server.state("recent") == "cancelled"


def test_with_zero_days_keys_expire_and_jobs_stay_for_ever(tmp_path: Path) -> None:
    sqlite.prepare(tmp_path / "orchestrator.db")
    database = sqlite.Sqlite(tmp_path / "orchestrator.db")
    end(database, "old", 10_000)
    database.write(lambda at: at("insert into claim_key (worker, key, job, expires_at) values ('w', 'k', 'old', 0)"))
    Silence(database, jobs.Rules(silence_s=0.4, max_requeues=1, keep_days=0)).start()
    until(lambda: database.read("select 1 from claim_key") == [])
    assert len(sql.jobs(database, None, 9)) == 1
