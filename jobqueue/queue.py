"""Every move of a job. Only the owner moves a working row: each such update names owner and state, and raises `LostJob` if
these no longer match, so that a process that was presumed dead cannot write any more.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import apsw

from errors import EngineFailed, JobError, LostJob
from jobqueue import clock
from jobqueue import statements as sql
from jobqueue.database import CommitUncertain, Database, Row
from jobqueue.job import FINISHED, STAGES, Job, NewJob, Stage, job_from_row, stage_working
from jobqueue.wake import EVERYONE, LISTENERS, Bell


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the owner is to do, as the answer to its progress."""

    cancel_reason: str | None
    hold: bool


class Queue:
    """The queue of one worker. One per process; safe to use from its threads."""

    def __init__(self, database: Database, program: str | None = None) -> None:
        self.database = database
        rows = database.read("select value from control where name = 'instance'")
        self.bell = Bell(rows[0]["value"], program)

    # ---- in ---------------------------------------------------------------------------------------------------------------

    def add(self, new: NewJob, intent: str | None = None) -> tuple[Job, bool]:
        """Add a job. Returns it and whether this call starts any work.

        Known and unfinished: it continues, reported to its latest source. Succeeded: its report is sent again.
        Failed or cancelled: a new round, with the new inputs and parameters. `intent`: the claim intent that this settles, in
        the same commit.
        """

        def statements(connection: apsw.Connection) -> tuple[Job, bool]:
            if intent is not None:
                connection.execute("delete from claim_intent where key = ?", (intent,))
            return self._insert_or_join(connection, new)

        try:
            job, fresh = self.database.write(statements)
        except CommitUncertain:  # adding twice is adding once
            time.sleep(0.05)
            job, fresh = self.database.write(statements)
        self._announce(job.state)
        return job, fresh

    def retry(self, job_id: str) -> Job | None:
        """A new round of a failed or cancelled job, by hand. None if it is neither."""
        return next(iter(self.retry_all([job_id])), None)

    def retry_all(self, job_ids: list[str]) -> list[Job]:
        """New rounds of those that failed or were cancelled, with their sources, in one commit."""
        values = [_round_values(job_id) for job_id in job_ids]
        rows = self.database.write(lambda connection: [row for one in values for row in _new_round(connection, one)])
        self._announce("claimed")
        return [job_from_row(row) for row in rows]

    # ---- the owner's moves ------------------------------------------------------------------------------------------------

    def take(self, stage: Stage, owner: str) -> Job | None:
        """The next job waiting for this stage, now owned by `owner`; None if there is none, or work is paused.

        Not synced to disk: a power cut that loses a take has also ended its owner, and the job would be put back anyway.
        """
        ready = "select 1 from job where state = ? and not_before <= ? limit 1"
        if not self.database.read(ready, stage.waiting, clock.now()):
            return None
        rows = self.database.write(lambda connection: _take(connection, stage, owner), durable=False)
        if rows:
            self._announce(stage.working)
        return _first(rows)

    def progress(self, job: Job, phase: str, progress: float, done: int | None = None, total: int | None = None) -> Asked:
        """Report the owner's progress. Raises LostJob if the row is no longer the owner's."""
        values = {"phase": phase, "progress": min(max(progress, 0.0), 1.0), "frames_done": done, "frames_total": total}
        values |= {"id": job.id, "state": job.state, "owner": job.owner, "at": clock.utc(), "now": clock.now()}
        rows = self.database.write(lambda connection: list(connection.execute(sql.PROGRESS, values)), durable=False)
        if not rows:
            raise LostJob(job.id)
        return Asked(cancel_reason=rows[0]["cancel_reason"], hold=bool(rows[0]["hold"]))

    def done(self, stage: Stage, job: Job, result: dict[str, Any]) -> Job:
        """The stage is complete: move to the next, with `result` added to earlier results. A cancellation wins until the object
        is stored. Raises LostJob."""
        return self._move(job, stage.done, heed_cancel=stage.done != "succeeded", **_complete(stage, job, result))

    def done_and_take(self, stage: Stage, job: Job, result: dict[str, Any], take: bool = True) -> tuple[str, Job | None]:
        """`done`, and the owner's next job of this stage, if it is to `take` one and one waits, in the same commit. Returns
        the new state of the job, and that next job. Raises LostJob."""
        values = _move_values(job, stage.done, **_complete(stage, job, result))

        def statements(connection: apsw.Connection) -> list[Row] | None:
            moved = _moved(connection, values, heed_cancel=stage.done != "succeeded")
            if not moved:
                return None
            return _take(connection, stage, str(job.owner)) if take else []

        rows = self.database.write(statements)  # CommitUncertain propagates: `work` releases what may be ours
        if rows is None:
            raise LostJob(job.id)
        following = _first(rows)
        self._announce(values["new"])
        if following is not None:
            self._announce(following.state)
        return values["new"], following

    def put_back(self, stage: Stage, job: Job, delay_s: float, error: JobError | None = None, unharmed: bool = False) -> Job:
        """Back to waiting, to be taken again after delay_s seconds. unharmed: this start does not count. Raises LostJob."""
        noted = {**job.result, "last_error": error.message} if error else job.result
        not_before = clock.now() + delay_s
        return self._move(job, stage.waiting, result=noted, not_before=not_before, unharmed=unharmed, heed_cancel=True)

    def fail(self, job: Job, error: dict[str, Any]) -> Job:
        """The end, with a structured error. Raises LostJob."""
        return self._move(job, "failed", error=error, phase="failed")

    def cancelled(self, job: Job, reason: str) -> Job:
        """The end, because of a cancellation. Raises LostJob."""
        return self._move(job, "cancelled", cancel_reason=reason)

    # ---- others' wishes ---------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str, reason: str) -> bool:
        """Cancel a job: at once if it is waiting, through its owner if it is being worked on. False if it has ended."""
        return bool(self.cancel_all([job_id], reason))

    def cancel_all(self, job_ids: list[str], reason: str) -> list[str]:
        """The same for many, in one commit: each on its own would wait for the disk. Returns those that had not ended."""
        values = [{"id": job_id, "reason": reason, "at": clock.utc()} for job_id in job_ids]

        def statements(connection: apsw.Connection) -> list[str]:
            asked = [one for one in values if list(connection.execute(sql.REQUEST_CANCEL, one))]
            for one in asked:
                connection.execute(sql.CANCEL_WAITING, one).fetchall()
            return [one["id"] for one in asked]

        done = self.database.write(statements)
        self.bell.poke(*EVERYONE)
        return done

    def hand_back(self, error: JobError) -> list[str]:
        """End waiting jobs of orchestrators and callers, so that another worker may do them. Returns their ids."""
        values = {"error": json.dumps(error.as_json("inference")), "at": clock.utc()}
        rows = self.database.write(lambda connection: list(connection.execute(sql.HAND_BACK, values)))
        if rows:
            self.bell.poke(*EVERYONE)
        return [row["id"] for row in rows]

    def recover(self, program: str, owner: str, timeout_s: float) -> list[Job]:
        """Put back what previous runs of `program` held, or end it if the stage has had its timeout_s.

        owner: this run; its threads' own names begin with it. Only the holder of the program's lock may call this.
        """
        freed = []
        for row in self.database.read(sql.WORKED_ON):
            job = job_from_row(row)
            if (job.owner or "").startswith(owner) or (job.owner or "").split("/")[0] != program:
                continue
            freed.append(self._bury(stage_working(job.state), job, timeout_s))
        return freed

    def let_go(self, owner: str) -> None:
        """Put back unharmed whatever this owner holds: it cannot know, since one of its commits failed."""
        for row in self.database.read(sql.WORKED_ON):
            if row["owner"] == owner:
                self.put_back(stage_working(row["state"]), job_from_row(row), 0, unharmed=True)

    # ---- to look ----------------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        return _first(self.database.read("select * from job where id = ?", job_id))

    def unfinished(self) -> list[Job]:
        """Every unfinished job, oldest first."""
        states = [state for stage in STAGES for state in (stage.waiting, stage.working)]
        marks = ", ".join("?" * len(states))
        rows = self.database.read(f"select * from job where state in ({marks}) order by number", *states)  # noqa: S608
        return [job_from_row(row) for row in rows]

    def newest(self, states: tuple[str, ...] = (), text: str = "", before: int | None = None, limit: int = 50) -> list[Job]:
        """Jobs by their latest arrival, newest first. `before`: the `number` to go on from (keyset paging)."""
        where, values = ["number < ?"], [before if before is not None else 2**62]
        if states:
            where.append(f"state in ({', '.join('?' * len(states))})")
            values.extend(states)  # type: ignore[arg-type]
        if text:
            where.append(sql.HAS_TEXT)
            values.extend((text, text))  # type: ignore[arg-type]
        query = f"select * from job where {' and '.join(where)} order by number desc limit ?"  # noqa: S608
        return [job_from_row(row) for row in self.database.read(query, *values, limit)]

    def counts(self) -> dict[str, int]:
        """Jobs by state; a state nobody is in is absent."""
        return {row["state"]: row["n"] for row in self.database.read("select state, count(*) as n from job group by state")}

    # ---- inside -----------------------------------------------------------------------------------------------------------

    def _move(self, job: Job, new: str, heed_cancel: bool = False, **changes: Any) -> Job:
        values = _move_values(job, new, **changes)

        def statements(connection: apsw.Connection) -> list[Row]:
            moved = _moved(connection, values, heed_cancel)
            return list(connection.execute("select * from job where id = ?", (job.id,))) if moved else []

        try:
            rows = self.database.write(statements)
        except CommitUncertain:  # look, then decide
            time.sleep(0.05)
            rows = self.database.read("select * from job where id = ? and state = ? and owner is null", job.id, values["new"])
            rows = rows or self.database.write(statements)
        if not rows:
            raise LostJob(job.id)
        self._announce(values["new"])
        return job_from_row(rows[0])

    def _bury(self, stage: Stage, job: Job, timeout_s: float) -> Job:
        """The owner died: put the job back, or end it if it has cost too much time or too many crashes."""
        dead, spent_s = job.crashes + 1, clock.now() - job.stage_since
        reason = f"{stage.program} died {dead} times while working on this job" if dead >= stage.max_crashes else None
        if spent_s > timeout_s:
            reason = f"{stage.name} took {spent_s:.0f} s, at most {timeout_s:.0f} s (JOB_TIMEOUT_SEC)"
        if reason is not None:
            error = EngineFailed(reason, stage=stage.default_step, crashes=dead)
            return self.fail(job, error.as_json(stage.default_step))
        values = {"id": job.id, "owner": job.owner}
        self.database.write(lambda connection: connection.execute(sql.COUNT_CRASH, values).fetchall())
        return self.put_back(stage, job, 0)

    def _insert_or_join(self, connection: apsw.Connection, new: NewJob) -> tuple[Job, bool]:
        at = clock.utc()
        state = "failed" if new.error else "claimed"
        values: dict[str, Any] = {
            "id": new.id,
            "source": new.source,
            "buffer_job_id": new.buffer_job_id,
            "queue_job_id": new.queue_job_id,
        }
        insert = values | {"engine": new.engine, "inputs": json.dumps(new.inputs), "params": json.dumps(new.params)}
        insert |= {"state": state, "now": clock.now(), "at": at, "finished_at": at if new.error else None}
        insert |= {"error": json.dumps(new.error) if new.error else None}
        rows = _changed(connection, sql.ADD, insert)
        if rows:
            return job_from_row(rows[0]), not new.error
        rows = _new_round(connection, _round_values(new.id, new))
        if rows and new.error:
            rows = list(connection.execute(sql.REFUSE, {"id": new.id, "error": json.dumps(new.error), "at": at}))
        if rows:
            return job_from_row(rows[0]), not new.error
        job = job_from_row(next(iter(list(connection.execute(sql.JOIN, values)))))
        if job.state == "succeeded" and new.source in ("main", "buffer"):
            list(connection.execute(sql.REPORT_AGAIN, (job.id, job.round)))
        return job, False

    def _announce(self, state: str) -> None:
        if programs := LISTENERS.get(state):
            self.bell.poke(*programs)


def _complete(stage: Stage, job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """What a stage that is complete changes."""
    merged = {**job.result, **result}
    merged["stage_times"] = {**job.result.get("stage_times", {}), **result.get("stage_times", {})}
    if stage.done == "succeeded":
        return {"result": merged, "progress": 1.0, "phase": "completed"}
    return {"result": merged, "progress": job.progress, "phase": job.phase}


def _move_values(
    job: Job,
    new: str,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    not_before: float = 0,
    progress: float = 0,
    phase: str | None = None,
    cancel_reason: str | None = None,
    unharmed: bool = False,
) -> dict[str, Any]:
    return {
        "id": job.id,
        "owner": job.owner,
        "old": job.state,
        "new": new,
        "result": json.dumps(job.result if result is None else result),
        "error": json.dumps(error) if error else None,
        "not_before": not_before,
        "progress": progress,
        "phase": phase,
        "cancel_reason": cancel_reason,
        "unharmed": unharmed,
        "finished": new in FINISHED,
        "fresh": new != stage_working(job.state).waiting,
        "now": clock.now(),
        "at": clock.utc(),
    }


def _moved(connection: apsw.Connection, values: dict[str, Any], heed_cancel: bool) -> bool:
    """Make the move; to `cancelled` instead, noted in `values`, if that was asked for. False if the job is not the owner's."""
    if heed_cancel:
        asked = "select 1 from job where id = ? and cancel_reason is not null"
        if list(connection.execute(asked, (values["id"],))):
            values.update(new="cancelled", finished=True, error=None, phase="failed")
    connection.execute(sql.MOVE, values)
    return bool(connection.changes())


def _take(connection: apsw.Connection, stage: Stage, owner: str) -> list[Row]:
    values: dict[str, Any] = {"program": stage.program, "working": stage.working, "waiting": stage.waiting, "owner": owner}
    values |= {"at": clock.utc(), "now": clock.now()}
    for found in list(connection.execute(sql.NEXT, values)):
        return _changed(connection, sql.TAKE, {**values, **found})
    return []


def _changed(connection: apsw.Connection, statement: str, values: Row) -> list[Row]:
    """The job's row after a statement that moves it; nothing if the statement found none to move."""
    connection.execute(statement, values)
    return list(connection.execute("select * from job where id = ?", (values["id"],))) if connection.changes() else []


def _new_round(connection: apsw.Connection, values: dict[str, Any]) -> list[Row]:
    """The job's row in its new round, its oldest rounds forgotten; nothing if it is not one that begins again."""
    rows = list(connection.execute(sql.NEW_ROUND, values))
    for statement in sql.FORGET_ROUNDS if rows else ():
        connection.execute(statement, values)
    return rows


def _first(rows: list[Row]) -> Job | None:
    return job_from_row(rows[0]) if rows else None


def _round_values(job_id: str, new: NewJob | None = None) -> dict[str, Any]:
    """Of a new round: from whom the job came anew, so that who sent it is who is answered, and what it says; or as it was."""
    sent = {name: getattr(new, name, None) for name in ("source", "buffer_job_id", "queue_job_id", "engine")}
    said = {name: json.dumps(getattr(new, name)) if new else None for name in ("inputs", "params")}
    return {"id": job_id, **sent, **said, "now": clock.now(), "at": clock.utc()}
