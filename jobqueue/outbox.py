"""The events of jobs, as history for the page and as the outbox for the poller.

A terminal event is in the outbox until somebody has acknowledged it (`sent_at`), through restarts of anything. A job's
files may go only after that.
"""

from __future__ import annotations

from jobqueue import clock
from jobqueue.database import Database
from jobqueue.job import Event, Job, job_from_row

_DUE = """
select * from event where sent_at is null and ends and not_before <= ?
order by not_before, id limit ?"""


class Outbox:
    """Reads and settles events; the rows themselves are written by triggers alone."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def due(self, limit: int = 20) -> list[tuple[Event, Job]]:
        """Terminal events that are to be reported now, each with its job as it stands."""
        events = [Event(**row) for row in self.database.read(_DUE, clock.now(), limit)]
        found: list[tuple[Event, Job]] = []
        for event in events:
            rows = self.database.read("select * from job where id = ?", event.job)
            found.extend((event, job_from_row(row)) for row in rows)
        return found

    def sent(self, event: Event, answer: str) -> None:
        """Somebody has acknowledged the event, or there is nobody to tell."""
        sql = "update event set sent_at = ?, answer = ?, tries = tries + 1 where id = ? and sent_at is null"
        self.database.write(lambda connection: connection.execute(sql, (clock.utc(), answer[:500], event.id)).fetchall())

    def again(self, event: Event, answer: str, delay_s: float) -> None:
        """The report did not arrive: try again after delay_s seconds."""
        sql = "update event set tries = tries + 1, answer = ?, not_before = ? where id = ?"
        values = (answer[:500], clock.now() + delay_s, event.id)
        self.database.write(lambda connection: connection.execute(sql, values).fetchall(), durable=False)

    def waiting(self) -> int:
        """How many ends of jobs nobody has acknowledged yet."""
        sql = "select count(*) as n from event where sent_at is null and ends"
        return int(self.database.read(sql)[0]["n"])

    def history(self, job_id: str) -> list[Event]:
        """Every change of state of a job, oldest first."""
        return [Event(**row) for row in self.database.read("select * from event where job = ? order by id", job_id)]

    def ended(self, after: int | None) -> tuple[int, list[tuple[str, str]]]:
        """Engine and state of each end of a job since the event `after` (None: nothing yet), and the newest event's id."""
        newest = self.database.read("select coalesce(max(id), 0) as id from event")[0]["id"]
        sql = """select job.engine, event.state from event join job on job.id = event.job
            where event.id > ? and event.id <= ? and event.ends"""
        rows = [] if after is None else self.database.read(sql, after, newest)
        return newest, [(row["engine"], row["state"]) for row in rows]

    def removable(self, finished_before: str, limit: int = 200) -> list[Job]:
        """Jobs that ended before a time (UTC text) and whose end is acknowledged, oldest first."""
        sql = """select * from job where finished_at is not null and finished_at < ? and not exists (
            select 1 from event where event.job = job.id and sent_at is null and ends)
            order by finished_at limit ?"""
        return [job_from_row(row) for row in self.database.read(sql, finished_before, limit)]

    def known(self) -> list[tuple[str, bool]]:
        """The id of every job, and whether it is over and its end acknowledged; the ones that ended first come first."""
        sql = """select id, finished_at is not null and not exists (
            select 1 from event where event.job = job.id and sent_at is null and ends
            ) as settled from job order by finished_at"""
        return [(row["id"], bool(row["settled"])) for row in self.database.read(sql)]

    def forget(self, job_ids: list[str]) -> None:
        """Remove rows of jobs, with their history, and give the space back."""
        marks = ", ".join("?" * len(job_ids))
        sql = f"delete from job where id in ({marks}) and finished_at is not null"  # noqa: S608 - only question marks
        self.database.write(lambda connection: connection.execute(sql, job_ids).fetchall())
        self.database.write(lambda connection: connection.execute("pragma incremental_vacuum").fetchall(), durable=False)
