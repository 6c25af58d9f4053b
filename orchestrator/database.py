"""Every SQL statement of the orchestrator, for both databases; `sqlite.py` and `postgres.py` run them.

A statement is written once, in what both understand: `:name` for a value, and `for update` wherever a row is read to be
decided on, which SQLite (one writer at a time) leaves out. `:now` and `:utc` are the database's own: its clock for decisions,
in seconds, and the time of day as UTC text. So several machines can share a database without comparing their clocks.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from jobqueue.database import Row
from orchestrator.transaction import Database, Transaction

#: How long the answer to a claim with an Idempotency-Key is remembered, in seconds.
KEY_LIFE_S = 3600.0

# ---- jobs --------------------------------------------------------------------------------------------------------------


def job(at: Transaction, job_id: str) -> Row | None:
    return _one(at("select * from job where id = :id for update", id=job_id))


def buffer_job(at: Transaction, buffer_job_id: str) -> Row | None:
    return _one(at("select * from job where buffer_job_id = :id for update", id=buffer_job_id))


def jobs(database: Database, state: str | None, limit: int) -> list[Row]:
    """The newest first."""
    if state is None:
        return database.read("select * from job order by number desc limit :limit", limit=limit)
    return database.read("select * from job where state = :state order by number desc limit :limit", state=state, limit=limit)


def job_in_full(database: Database, job_id: str) -> tuple[Row, list[Row], list[Row]] | None:
    """A job, its history, and the terminal reports that came in for it."""
    found = database.read("select * from job where id = :id", id=job_id)
    if not found:
        return None
    events = database.read("select state, worker, detail, at from event where job = :id order by id", id=job_id)
    reports = database.read(
        "select worker, path, body, verdict, accepted, at from report where job = :id order by id", id=job_id
    )
    return found[0], events, reports


def add_job(at: Transaction, job_id: str, buffer_job_id: str | None, submission: dict[str, Any]) -> None:
    at(
        """insert into job (id, buffer_job_id, engine, submission, created_at, updated_at)
           values (:id, :buffer_job_id, :engine, :submission, :utc, :utc)""",
        id=job_id,
        buffer_job_id=buffer_job_id,
        engine=submission["engine"],
        submission=json.dumps(submission),
    )


def claim_next(at: Transaction, worker: str, *, buffer: bool) -> Row | None:
    """Assign the oldest waiting job of one queue to a worker; not one that somebody else is claiming at this moment."""
    return _one(
        at(
            """update job set state = 'claimed', worker = :worker, attempts = attempts + 1, detail = null, phase = null,
                      vouched_at = :now, updated_at = :utc
               where number = (select number from job where state = 'queued' and (buffer_job_id is not null) = :buffer
                               order by number limit 1 for update skip locked)
               returning *""",
            worker=worker,
            buffer=buffer,
        )
    )


def keep_key(at: Transaction, worker: str, key: str, given: Row) -> None:
    """Of two equal claims at the same moment the second must fail here; it is run again, and finds the first one's job.

    So only a key that `job_of_key` would not find may be replaced.
    """
    values = {"worker": worker, "key": key, "buffer": given["buffer_job_id"] is not None, "job": given["id"]}
    at(
        """delete from claim_key where worker = :worker and key = :key
              and not (expires_at > :now and exists (
                  select 1 from job where id = claim_key.job and state in ('claimed', 'running') and worker = :worker
                                      and (buffer_job_id is not null) = :buffer))""",
        **values,
    )
    expiring = "insert into claim_key (worker, key, job, expires_at) values (:worker, :key, :job, :now + :life_s)"
    at(expiring, **values, life_s=KEY_LIFE_S)


def job_of_key(at: Transaction, worker: str, key: str, *, buffer: bool) -> Row | None:
    """The job of the previous answer to this claim, if the worker still has it; also confirms the job."""
    return _one(
        at(
            """update job set vouched_at = :now
                where state in ('claimed', 'running') and worker = :worker and (buffer_job_id is not null) = :buffer
                  and id = (select job from claim_key where worker = :worker and key = :key and expires_at > :now)
                returning *""",
            worker=worker,
            key=key,
            buffer=buffer,
        )
    )


def request_cancel(at: Transaction, job_id: str) -> None:
    at(
        "update job set cancel_requested = 1, updated_at = :utc where id = :id and state in ('claimed', 'running')",
        id=job_id,
    )


def set_running(at: Transaction, job_id: str, progress: float, phase: str, metrics: str | None) -> None:
    """A running report: progress never goes down, even when the job has started over elsewhere."""
    at(
        """update job set state = 'running', phase = :phase, metrics = coalesce(:metrics, metrics),
                  progress = case when progress < :progress then :progress else progress end,
                  vouched_at = :now, updated_at = :utc
            where id = :id and state in ('claimed', 'running')""",
        id=job_id,
        progress=progress,
        phase=phase,
        metrics=metrics,
    )


def finish(at: Transaction, job_id: str, state: str, outcome: dict[str, Any]) -> None:
    """End a job. `outcome`: detail, error, output_url, metrics (JSON text), each may be None."""
    at(
        """update job set state = :state, detail = :detail, error = :error, output_url = :output_url,
                  metrics = coalesce(:metrics, metrics), finished_at = :utc, updated_at = :utc,
                  progress = case :state when 'succeeded' then 1.0 else progress end,
                  phase = case :state when 'succeeded' then 'completed' else 'failed' end
           where id = :id""",
        id=job_id,
        state=state,
        **outcome,
    )


def requeue(at: Transaction, job_id: str, detail: str) -> None:
    at(
        """update job set state = 'queued', worker = null, requeues = requeues + 1, phase = null, detail = :detail,
                  updated_at = :utc where id = :id""",
        id=job_id,
        detail=detail,
    )


# ---- silence -----------------------------------------------------------------------------------------------------------


def last_look(database: Database, silence_s: float) -> tuple[float, bool]:
    """How long ago an orchestrator last noted that it listens, in seconds, and whether a job seems silent too long."""
    row = database.read(
        """select :now - looked_at as ago_s,
                  exists (select 1 from job where state in ('claimed', 'running') and vouched_at <= :now - :silence_s) as silent
             from listening""",
        silence_s=silence_s,
    )[0]
    return row["ago_s"], bool(row["silent"])


def listen(at: Transaction, max_gap_s: float) -> float:
    """Note that an orchestrator listens. If none did for longer than max_gap_s, that time is excluded from every silence.

    Returns the excluded seconds. Also mends what a clock that was set back has left in the future.
    """
    gap_s = float(at("select :now - looked_at as gap_s from listening for update")[0]["gap_s"])
    at("update listening set looked_at = :now")
    if 0 <= gap_s <= max_gap_s:
        return 0.0
    gap_s = max(0.0, gap_s)
    at(
        """update job set vouched_at = case when vouched_at + :gap_s < :now then vouched_at + :gap_s else :now end
            where state in ('claimed', 'running')""",
        gap_s=gap_s,
    )
    at(
        """update worker set seen_at = case when seen_at + :gap_s < :now then seen_at + :gap_s else :now end
            where seen_at is not null""",
        gap_s=gap_s,
    )
    return gap_s


def unvouched(at: Transaction, silence_s: float) -> list[Row]:
    """Assigned jobs that their worker had not confirmed for silence_s at the time of `listen`, in the same transaction.

    A job that somebody is writing to at this moment is no silent one.
    """
    return at(
        """select * from job where state in ('claimed', 'running')
              and vouched_at <= (select looked_at from listening) - :silence_s
            order by number for update skip locked""",
        silence_s=silence_s,
    )


# ---- workers and reports -----------------------------------------------------------------------------------------------


def keep_beat(at: Transaction, worker: str, queue: str, body: dict[str, Any]) -> None:
    at(
        """insert into worker (id, queue, seen_at, beat, beat_at) values (:worker, :queue, :now, :beat, :utc)
           on conflict (id) do update set queue = :queue, seen_at = :now, beat = :beat, beat_at = :utc""",
        worker=worker,
        queue=queue,
        beat=json.dumps(body),
    )


def assigned(at: Transaction, worker: str) -> list[Row]:
    return at(
        """select id, buffer_job_id, cancel_requested from job where state in ('claimed', 'running') and worker = :worker
            order by number for update""",
        worker=worker,
    )


def vouch(at: Transaction, job_id: str) -> None:
    """The worker of this job, which `assigned` has named in the same transaction, has it."""
    at("update job set vouched_at = :now where id = :id", id=job_id)


def workers(database: Database) -> list[Row]:
    return database.read("select worker.*, :now - seen_at as silent_s from worker order by id")


def keep_report(at: Transaction, job_id: str, path: str, body: dict[str, Any], verdict: str) -> None:
    at(
        """insert into report (job, worker, path, body, verdict, at)
           values (:job, :worker, :path, :body, :verdict, :utc)""",
        job=job_id,
        worker=body.get("worker_id"),
        path=path,
        body=json.dumps(body),
        verdict=verdict,
    )


# ---- forgetting --------------------------------------------------------------------------------------------------------


def drop_old_keys(at: Transaction) -> None:
    at("delete from claim_key where expires_at <= :now")


def forget(at: Transaction, keep_days: int, most: int) -> int:
    """Delete the oldest jobs that ended over keep_days ago, with events and reports, at most `most`; how many there were."""
    now = datetime.fromisoformat(at("select :utc as utc")[0]["utc"])
    before = (now - timedelta(days=keep_days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    old = at(
        "select id from job where finished_at < :before order by finished_at limit :most for update skip locked",
        before=before,
        most=most,
    )
    for row in old:
        at("delete from event where job = :id", **row)
        at("delete from report where job = :id", **row)
        at("delete from job where id = :id", **row)
    unknown = "select id from report where verdict = 'unknown' and at < :before limit :most"
    at(f"delete from report where id in ({unknown})", before=before, most=most)  # noqa: S608 - our own text
    return len(old)


def _one(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None
