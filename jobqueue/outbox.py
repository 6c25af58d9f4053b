"""The events of jobs, as history for the page and as the poller's outbox; and each attempt to report them.

A terminal event stays in the outbox until it is acknowledged (`sent_at`), across all restarts. A job's files may be deleted
only after that. The recorded attempts are for people to read: no decision depends on them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

import apsw

from jobqueue import clock
from jobqueue.database import ERRORS, Database
from jobqueue.job import Event, Job, Report, job_from_row

log = logging.getLogger(__name__)

#: Stored reports per round of a job, the first and the newest: terminal ones, and running ones.
MAX_OF_END, MAX_OF_RUN = 200, 50
#: Running reports are kept only among this many newest of all jobs: about 4 MB.
MAX_RUNNING = 20_000
#: Jobs that are read at once where all are looked at.
PIECE = 1000

_DUE = """
select * from event where sent_at is null and ends and not_before <= ?
order by not_before, id limit ?"""

_KEEP = """
insert into report (job, round, place, said, progress, phase, status, words, took_ms, at)
values (:job, :round, :place, :said, :progress, :phase, :status, :words, :took_ms, :at)"""

_SAME = "select id from report where job = :job and round = :round and ends = :ends"
_THIN = f"""
delete from report where job = :job and round = :round and ends = :ends
    and id > ({_SAME} order by id limit 1) and id <= ({_SAME} order by id desc limit 1 offset :most - 1)"""  # noqa: S608 - ours
_TRIM = "delete from report indexed by report_running where not ends and id <= last_insert_rowid() - :all"

_REPORTS = """
select job, round, place, said, progress, phase, status, words, took_ms, at from report where job = ? order by id"""


class Outbox:
    """Reads and settles events; only triggers write the rows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def due(self, limit: int = 20) -> list[tuple[Event, Job]]:
        """Terminal events to report now, each with its job's current row."""
        events = [Event(**row) for row in self.database.read(_DUE, clock.now(), limit)]
        found: list[tuple[Event, Job]] = []
        for event in events:
            rows = self.database.read("select * from job where id = ?", event.job)
            found.extend((event, job_from_row(row)) for row in rows)
        return found

    def sent(self, event: Event, answer: str) -> None:
        """The event is acknowledged, or needs no report."""
        sql = "update event set sent_at = ?, answer = ?, tries = tries + 1 where id = ? and sent_at is null"
        self.database.write(lambda connection: connection.execute(sql, (clock.utc(), answer[:500], event.id)).fetchall())

    def again(self, event: Event, answer: str, delay_s: float) -> None:
        """The report did not arrive: retry after delay_s seconds."""
        sql = "update event set tries = tries + 1, answer = ?, not_before = ? where id = ?"
        values = (answer[:500], clock.now() + delay_s, event.id)
        self.database.write(lambda connection: connection.execute(sql, values).fetchall(), durable=False)

    def waiting(self) -> int:
        """How many terminal events are not acknowledged yet."""
        sql = "select count(*) as n from event where sent_at is null and ends"
        return int(self.database.read(sql)[0]["n"])

    def history(self, job_id: str) -> list[Event]:
        """Every state change of a job, oldest first."""
        return [Event(**row) for row in self.database.read("select * from event where job = ? order by id", job_id)]

    def keep(self, report: Report) -> None:
        """Record an attempt. It is dropped if the queue cannot be written: no report may wait for its record."""
        ends = report.said != "running"
        values = asdict(report) | {"ends": ends, "most": MAX_OF_END if ends else MAX_OF_RUN, "all": MAX_RUNNING}

        def statements(connection: apsw.Connection) -> None:
            for sql in (_KEEP, _TRIM, _THIN):
                connection.execute(sql, values)

        try:
            self.database.try_write(statements)
        except ERRORS as error:
            log.warning("a report on job %.200s could not be recorded: %s", report.job, error)

    def reports(self, job_id: str) -> list[Report]:
        """The stored reports on a job, oldest first."""
        return [Report(**row) for row in self.database.read(_REPORTS, job_id)]

    def told(self, job: Job) -> float:
        """The highest stored progress report of this round of a job."""
        sql = "select coalesce(max(progress), 0.0) as told from report where job = ? and round = ?"
        return float(self.database.read(sql, job.id, job.round)[0]["told"])

    def hurry(self) -> None:
        """Report at once what waits for a retry."""
        sql = "update event set not_before = 0 where sent_at is null and ends"
        self.database.write(lambda connection: connection.execute(sql).fetchall(), durable=False)

    def ended(self, after: int | None) -> tuple[int, list[tuple[str, str]]]:
        """Engine and state of each end of a job since the event `after` (None: nothing yet), and the newest event's id."""
        newest = self.database.read("select coalesce(max(id), 0) as id from event")[0]["id"]
        sql = """select job.engine, event.state from event join job on job.id = event.job
            where event.id > ? and event.id <= ? and event.ends"""
        rows = [] if after is None else self.database.read(sql, after, newest)
        return newest, [(row["engine"], row["state"]) for row in rows]

    def removable(self, finished_before: str, limit: int = 200) -> list[Job]:
        """Jobs that ended before a time (UTC text) and are acknowledged, oldest first."""
        sql = """select * from job where finished_at is not null and finished_at < ? and not exists (
            select 1 from event where event.job = job.id and sent_at is null and ends)
            order by finished_at limit ?"""
        return [job_from_row(row) for row in self.database.read(sql, finished_before, limit)]

    def known(self) -> Iterator[tuple[str, str | None]]:
        """The id of every job, and when it ended if it is over and its end acknowledged (UTC text), else None.

        In pieces: a week may hold a hundred thousand. None that is there all the while is left out, as a rowid is for life.
        """
        sql = """select rowid as place, id, iif(finished_at is not null and not exists (
            select 1 from event where event.job = job.id and sent_at is null and ends
            ), finished_at, null) as settled_at from job where rowid > ? order by rowid limit ?"""
        place = 0
        while rows := self.database.read(sql, place, PIECE):
            place = rows[-1]["place"]
            yield from ((row["id"], row["settled_at"]) for row in rows)

    def forget(self, job_ids: list[str]) -> None:
        """Delete rows of jobs, with their history, and release the space."""
        marks = ", ".join("?" * len(job_ids))
        sql = f"delete from job where id in ({marks}) and finished_at is not null"  # noqa: S608 - only question marks
        self.database.write(lambda connection: connection.execute(sql, job_ids).fetchall())
        self.database.write(lambda connection: connection.execute("pragma incremental_vacuum").fetchall(), durable=False)
