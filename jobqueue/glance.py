"""What the page asks at every look, in a few statements whose cost does not grow with history."""

from __future__ import annotations

import hashlib
import json

from jobqueue.database import Database, Row

VERSION = """
select (select max(id) from event) as events, (select count(*) from event where sent_at is null and ends) as unsent,
    (select sum(tries) from event where sent_at is null and ends) as tries,
    (select group_concat(updated_at || coalesce(cancel_reason, '')) from job
        where state in ('fetching', 'generating', 'uploading')) as working,
    (select min(number) from job) as first, (select max(number) from job) as last,
    (select max(id) from audit) as notes, (select group_concat(name || value) from control) as control"""

#: The jobs that were on the GPU since a time; `until` is null for the one that still is.
RUNS = """
select id, engine, state, started_at as since,
    coalesce((select min(at) from event where event.job = ended.id and event.round = ended.round and event.state = 'generated'),
        finished_at) as until
from (select * from job indexed by job_finished where finished_at >= :since
    union all select * from job where state in ('generating', 'generated', 'uploading', 'ready')) as ended
where started_at is not null order by started_at desc limit :most"""

HOURS = """
select substr(finished_at, 1, 13) as hour, state, count(*) as n from job indexed by job_finished where finished_at >= ?
group by 1, 2"""

ENDED = "select state, count(*) as n from job indexed by job_finished where finished_at >= ? group by state"


def version(database: Database) -> str:
    """A text that is another one as soon as anything of the queue that a page shows has changed (not what programs say)."""
    row = database.read(VERSION)[0]
    return hashlib.sha256(json.dumps(list(row.values())).encode()).hexdigest()[:16]


def running(database: Database) -> float | None:
    """How far the job on the GPU is, 0 to 1; None if there is none."""
    rows = database.read("select progress from job where state = 'generating' order by number limit 1")
    return rows[0]["progress"] if rows else None


def ended(database: Database, since: str) -> dict[str, int]:
    """How many jobs ended in each way since a time (UTC text)."""
    return {row["state"]: row["n"] for row in database.read(ENDED, since)}


def by_hour(database: Database, since: str) -> dict[str, dict[str, int]]:
    """How many jobs ended in each way in each hour (`2026-01-02T03`) since a time; an hour in which none did is absent."""
    found: dict[str, dict[str, int]] = {}
    for row in database.read(HOURS, since):
        found.setdefault(row["hour"], {})[row["state"]] = row["n"]
    return found


def runs(database: Database, since: str, most: int = 500) -> list[Row]:
    """The jobs that were on the GPU since a time (UTC text), newest first: id, engine, state, since, until (None: still is)."""
    return database.read(RUNS, since=since, most=most)
