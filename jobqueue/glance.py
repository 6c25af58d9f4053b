"""What the page asks at every look, and the claim loop, in a few statements whose cost does not grow with history."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from jobqueue.database import Database, Row

VERSION = """
select (select max(id) from event) as events, (select count(*) from event where sent_at is null and ends) as unsent,
    (select sum(tries) from event where sent_at is null and ends) as tries,
    (select group_concat(cancel_reason) from job where state in ('fetching', 'generating', 'uploading')) as cancels,
    (select min(number) from job) as first, (select max(number) from job) as last,
    (select max(id) from audit) as notes, (select group_concat(name || value) from control) as control,
    (select group_concat(updated_at || progress) from job where state in ('fetching', 'generating', 'uploading')) as working"""

#: The jobs that were on the GPU since a time; `until` is null for the one that still is.
RUNS = """
select id, engine, state, started_at as since,
    coalesce((select min(at) from event where event.job = ran.id and event.round = ran.round and event.state = 'generated'),
        finished_at) as until
from (
    select * from (select id, engine, state, round, started_at, finished_at from job indexed by job_finished
        where finished_at >= :since and started_at is not null order by finished_at desc limit :most)
    union all select id, engine, state, round, started_at, finished_at from job
        where state in ('generating', 'generated', 'uploading', 'ready')
) as ran where started_at is not null order by 4 desc"""

#: The same for the marks under a chart: cheaper, and to the second it need not be.
MARKS = """
select id, state, started_at as since, finished_at as until from job indexed by job_finished
where finished_at >= :since and started_at is not null
union all select id, state, started_at, null from job where state = 'generating' order by 4 desc nulls first limit :most"""

HOURS = """
select substr(finished_at, 1, 13) as hour, state, count(*) as n from job indexed by job_finished where finished_at >= ?
group by 1, 2"""

#: The changes of state of the newest jobs of an engine that succeeded. Only so many are looked at for one of a rare engine.
USUAL = """
select event.job, event.state, event.at from event join (
    select id, round from (select id, round, engine from job where state = 'succeeded' order by number desc limit 1000)
        where engine = ? limit 50
) as done on event.job = done.id and event.round = done.round order by event.job, event.id"""

#: The changes of state of some jobs, a JSON list of ids.
SPENT = """
select event.job, event.state, event.at from event join job on job.id = event.job and job.round = event.round
where job.id in (select value from json_each(?)) order by event.job, event.id"""

ACTS = "select * from audit where target = ? order by id desc limit 20"

TOLD = "select max(id) as newest from report where job = ?"

ENDED = "select state, count(*) as n from job indexed by job_finished where finished_at >= ? group by state"


@dataclass(frozen=True, kw_only=True)
class Version:
    """Two texts that are other ones as soon as something has changed. What programs say of themselves is in neither.

    moves     of all that a page shows but how far work is: jobs, reports, flags, audit
    progress  of how far the jobs are that are worked on: four times a second while one runs
    """

    moves: str
    progress: str


def version(database: Database) -> Version:
    """The marks of the queue as it is now."""
    row = database.read(VERSION)[0]
    progress = row.pop("working")
    moves = hashlib.sha256(json.dumps(list(row.values())).encode()).hexdigest()[:16]
    return Version(moves=moves, progress=progress or "")


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


def marks(database: Database, since: str, most: int) -> list[Row]:
    """As `runs`, newest first, but with the time of the upload and without jobs that wait for it."""
    return database.read(MARKS, since=since, most=most)


def usual(database: Database, engine: str) -> dict[str, float]:
    """By state: the median of the seconds that the newest successful jobs of an engine spent in it; "all": from end to end."""
    jobs = _spent(database.read(USUAL, engine))
    states = {state for one in jobs.values() for state in one}
    return {state: statistics.median(one.get(state, 0.0) for one in jobs.values()) for state in states}


def spent(database: Database, job_ids: list[str]) -> dict[str, dict[str, float]]:
    """By job: the seconds that its newest round spent in each state; "all": from end to end."""
    return _spent(database.read(SPENT, json.dumps(job_ids)))


def told(database: Database, job_id: str) -> int | None:
    """A mark that changes with each report of a job that is noted."""
    newest: int | None = database.read(TOLD, job_id)[0]["newest"]
    return newest


def acts(database: Database, job_id: str) -> list[Row]:
    """What operators did with a job, newest first: audit rows."""
    return database.read(ACTS, job_id)


def _spent(rows: list[Row]) -> dict[str, dict[str, float]]:
    """By job: the seconds between its changes of state, which are in order."""
    spent: dict[str, dict[str, float]] = {}
    for row, following in pairwise(rows):
        if row["job"] == following["job"]:
            one = spent.setdefault(row["job"], {"all": 0.0})
            seconds = (datetime.fromisoformat(following["at"]) - datetime.fromisoformat(row["at"])).total_seconds()
            for name in (row["state"], "all"):
                one[name] = one.get(name, 0.0) + seconds
    return spent
