"""The list of jobs: what is in it, in which order, page by page, and that no page of it costs a look at every job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobqueue import clock, glance, listing, migrations
from jobqueue.database import Database, connect
from jobqueue.job import STAGES
from jobqueue.listing import Wanted
from jobqueue.queue import Queue
from tests.jobqueue.conftest import arrival

LATE = "2999-01-01T00:00:00.000Z"


def ids(queue: Queue, **wanted: Any) -> list[str]:
    return [line.id for line in listing.lines(queue.database, Wanted(**wanted), 100)]


def finished(queue: Queue, job_id: str, took_s: int = 1, size_bytes: int = 1, error: str | None = None) -> None:
    """A job that was on the GPU for so long, as the rows would say."""
    queue.add(arrival(job_id))
    for stage in STAGES:
        job = queue.take(stage, f"{stage.program}/test")
        assert job
        if error and stage.name == "generate":
            queue.fail(job, {"message": error, "error_type": "unknown_error"})
            break
        queue.done(stage, job, {"output_url": "https://store.example/x", "size_bytes": size_bytes})
    times = f"2026-01-02T03:00:{took_s:02}.000Z", job_id
    sql = "update job set started_at = '2026-01-02T03:00:00.000Z', finished_at = ? where id = ?"
    change(queue, sql, *times)


def change(queue: Queue, sql: str, *values: Any) -> None:
    queue.database.write(lambda connection: connection.execute(sql, values).fetchall())


@pytest.fixture
def full(queue: Queue) -> Queue:
    finished(queue, "a", 5, 100)
    finished(queue, "b", 9, 50)
    finished(queue, "c", 7, error="CUDA out of memory")
    queue.add(arrival("d"))
    queue.add(arrival("e"))
    queue.cancel("e", "sent by mistake")
    return queue


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "edcba"),
        ({"states": ("succeeded",)}, "ba"),
        ({"states": ("claimed", "fetching")}, "d"),
        ({"engine": "musetalk"}, "edcba"),
        ({"engine": "fastwan"}, ""),
        ({"text": "b"}, "b"),
        ({"text": "out of mem"}, "c"),
        ({"text": "%"}, ""),
        ({"text": "sent by"}, ""),
        ({"since": LATE}, "d"),
        ({"since": "2026-01-02T03:00:07.000Z"}, "edcb"),
        ({"sort": "slowest"}, "bca"),
        ({"sort": "slowest", "states": ("succeeded",)}, "ba"),
        ({"sort": "biggest"}, "ab"),
        ({"sort": "biggest", "states": ("failed",)}, ""),
    ],
)
def test_a_list_is_filtered_and_sorted(full: Queue, wanted: dict[str, Any], found: str) -> None:
    assert "".join(ids(full, **wanted)) == found


@pytest.mark.parametrize("sort", listing.SORTS)
def test_pages_follow_each_other_without_a_gap_or_a_repetition(queue: Queue, sort: str) -> None:
    for number in range(7):
        finished(queue, f"j{number}", took_s=number % 2, size_bytes=number % 3 + 1)
    whole = ids(queue, sort=sort)
    assert len(whole) == 7
    assert [line.id for line in listing.all_lines(queue.database, Wanted(sort=sort), 100, at_once=2)] == whole
    assert [line.id for line in listing.all_lines(queue.database, Wanted(sort=sort), 3, at_once=2)] == whole[:3]


def test_a_line_says_what_the_list_shows(full: Queue) -> None:
    by_id = {line.id: line for line in listing.lines(full.database, Wanted(), 100)}
    assert by_id["c"].message == "CUDA out of memory"
    assert by_id["e"].cancel_reason == "sent by mistake"
    assert (by_id["a"].size_bytes, by_id["d"].size_bytes) == (100, None)


def test_an_error_of_any_length_does_not_weigh_on_the_list(queue: Queue) -> None:
    finished(queue, "huge", error="x" * 10_000_000)
    finished(queue, "long", error="y" * 5_000)
    lines = {line.id: line.message for line in listing.lines(queue.database, Wanted(), 10)}
    assert lines == {"huge": "an error text of 10000046 bytes", "long": "y" * 500}


PAGES = [
    Wanted(),
    Wanted(after=(9, 9)),
    Wanted(states=("failed",)),
    Wanted(states=("failed", "cancelled"), engine="fastwan", since="2026", after=(9, 9)),
    Wanted(text="x"),
    Wanted(sort="slowest"),
    Wanted(sort="slowest", states=("failed",), after=(1.5, 9), text="x"),
    Wanted(sort="biggest"),
    Wanted(sort="biggest", after=(100, 9)),
]


@pytest.mark.parametrize("wanted", PAGES, ids=repr)
def test_no_page_sorts_or_reads_every_job(queue: Queue, wanted: Wanted) -> None:
    sql, values = listing.statement(wanted, 26)
    plan = [row["detail"] for row in queue.database.read("explain query plan " + sql, *values)]
    assert all("USING" in step and "INDEX" in step for step in plan if "job" in step), plan
    if len(wanted.states) < 2:
        assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("name", ["RUNS", "MARKS", "USUAL", "HOURS", "ENDED"])
def test_a_glance_at_the_past_uses_its_indexes(queue: Queue, name: str) -> None:
    sql = getattr(glance, name)
    explain = "explain query plan " + sql
    rows = queue.database.read(explain, since="x", most=1) if ":" in sql else queue.database.read(explain, "x")
    plan = " / ".join(row["detail"] for row in rows)
    for table in ("job", "event"):
        assert f"SCAN {table}" not in plan.replace(f"SCAN {table} USING INDEX", ""), plan


def test_runs_are_the_jobs_that_were_on_the_gpu(full: Queue) -> None:
    runs = {run["id"]: run for run in glance.runs(full.database, "2026-01-01")}
    assert set(runs) == {"a", "b", "c"}
    assert runs["c"]["until"] == "2026-01-02T03:00:07.000Z"
    assert runs["a"]["until"] <= clock.utc()
    assert [run["id"] for run in glance.runs(full.database, "2026-01-01", most=1)] == ["b"]
    assert [mark["id"] for mark in glance.marks(full.database, "2026-01-01", 2)] == ["b", "c"]


def test_what_is_usual_is_the_median_of_the_jobs_that_succeeded(queue: Queue) -> None:
    assert glance.usual(queue.database, "musetalk") == {}
    for number, spent in enumerate((2, 10, 4)):
        finished(queue, f"j{number}")
        sql = """update event set at = case when state = 'succeeded' then ? when state in ('generated', 'uploading')
            then ? else '2026-01-02T03:00:00.000Z' end where job = ?"""
        ends = (f"2026-01-02T03:01:{spent:02}.000Z", f"2026-01-02T03:00:{spent:02}.000Z", f"j{number}")
        change(queue, sql, *ends)
    found = glance.usual(queue.database, "musetalk")
    assert (found["generating"], found["uploading"], found["all"]) == (4, 60, 64)
    assert glance.usual(queue.database, "fastwan") == {}


def test_the_hours_of_a_day_are_counted(full: Queue) -> None:
    assert glance.by_hour(full.database, "2026-01-01")["2026-01-02T03"] == {"succeeded": 2, "failed": 1}


def test_what_operators_did_with_a_job_is_known(queue: Queue) -> None:
    sql = "insert into audit (at, actor, action, target, reason, result) values (?, 'cli:root', 'cancel', ?, 'why', 'done')"
    for target in ("a", "b"):
        change(queue, sql, clock.utc(), target)
    assert [(act["target"], act["action"]) for act in glance.acts(queue.database, "a")] == [("a", "cancel")]


def test_a_queue_of_the_first_version_gets_what_the_list_needs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    connection = connect(path, create=True)
    connection.execute(migrations.STEPS[0].read_text())
    connection.execute(f"pragma user_version = 1; pragma application_id = {migrations.APPLICATION_ID}")
    connection.close()
    migrations.prepare(path)
    queue = Queue(Database(path))
    finished(queue, "a")
    assert [ids(queue, sort=sort) for sort in listing.SORTS] == [["a"]] * 3
    queue.database.close()
