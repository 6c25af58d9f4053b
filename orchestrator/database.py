"""Every SQL statement of the orchestrator, and the making of its file.

Connections (SQLite through apsw, one per thread, opened after fork) are the worker queue's, on a different file. A different
database would only have to provide the functions of this module.

Times used in decisions are seconds of the boot clock, times of day are UTC text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw

from jobqueue import clock
from jobqueue.database import Database, Row, check_library, connect

APPLICATION_ID = 0x47505552  # "GPUR"
VERSION = 1
#: How long the answer to a claim with an Idempotency-Key is remembered, in seconds.
KEY_LIFE_S = 3600.0

#: A connection inside a transaction, as `Database.write` hands it to its callback.
Transaction = apsw.Connection


class WrongFile(Exception):
    """The file is not an orchestrator's, is from a newer version, or is corrupt."""


def prepare(path: Path) -> None:
    """Create the file if there is none, and start a new run: silence while we were down does not count.

    Raises WrongFile with a line for the user.
    """
    check_library()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = connect(path, create=True)
    except apsw.NotADBError as error:
        raise WrongFile(f"{path}: is not a database; move it away to start with a new one") from error
    try:
        _create(connection, path)
        now = {"now": clock.now(), "expires": clock.now() + KEY_LIFE_S}
        connection.execute("begin immediate")
        connection.execute("update job set vouched_at = :now where state in ('claimed', 'running')", now)
        connection.execute("update worker set seen_at = null")
        connection.execute("update claim_key set expires_at = :expires", now)
        connection.execute("commit")
    except apsw.CorruptError as error:
        raise WrongFile(f"{path}: is corrupt; move it away to start with a new one") from error
    finally:
        connection.close()


def _create(connection: Transaction, path: Path) -> None:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == 0 and version == 0 and not connection.pragma("schema_version"):
        connection.execute("begin immediate")
        connection.execute(Path(__file__).with_name("schema.sql").read_text())
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")
    elif application != APPLICATION_ID:
        raise WrongFile(f"{path}: is another program's database; choose another folder")
    elif version != VERSION:
        raise WrongFile(f"{path}: has version {version}, this program supports {VERSION}; update the program")


# ---- jobs --------------------------------------------------------------------------------------------------------------


def job(at: Transaction, job_id: str) -> Row | None:
    return _one(at, "select * from job where id = ?", (job_id,))


def buffer_job(at: Transaction, buffer_job_id: str) -> Row | None:
    return _one(at, "select * from job where buffer_job_id = ?", (buffer_job_id,))


def jobs(database: Database, state: str | None, limit: int) -> list[Row]:
    """The newest first."""
    if state is None:
        return database.read("select * from job order by number desc limit ?", limit)
    return database.read("select * from job where state = ? order by number desc limit ?", state, limit)


def job_in_full(database: Database, job_id: str) -> tuple[Row, list[Row], list[Row]] | None:
    """A job, its history, and the terminal reports that came in for it."""
    found = database.read("select * from job where id = ?", job_id)
    if not found:
        return None
    events = database.read("select state, worker, detail, at from event where job = ? order by id", job_id)
    reports = database.read("select worker, path, body, verdict, accepted, at from report where job = ? order by id", job_id)
    return found[0], events, reports


def add_job(at: Transaction, job_id: str, buffer_job_id: str | None, submission: dict[str, Any]) -> None:
    values = (job_id, buffer_job_id, submission["engine"], json.dumps(submission), clock.utc(), clock.utc())
    at.execute(
        "insert into job (id, buffer_job_id, engine, submission, created_at, updated_at) values (?, ?, ?, ?, ?, ?)", values
    )


def claim_next(at: Transaction, worker: str, *, buffer: bool) -> Row | None:
    """Assign the oldest waiting job of one queue to a worker."""
    return _one(
        at,
        """update job set state = 'claimed', worker = :worker, attempts = attempts + 1, detail = null, phase = null,
                  vouched_at = :now, updated_at = :utc
           where number = (select number from job where state = 'queued' and (buffer_job_id is not null) = :buffer
                           order by number limit 1)
           returning *""",
        _times(worker=worker, buffer=buffer),
    )


def keep_key(at: Transaction, worker: str, key: str, job_id: str) -> None:
    at.execute("insert or replace into claim_key values (?, ?, ?, ?)", (worker, key, job_id, clock.now() + KEY_LIFE_S))


def job_of_key(at: Transaction, worker: str, key: str, *, buffer: bool) -> Row | None:
    """The job of the previous answer to this claim, if the worker still has it; also confirms the job."""
    return _one(
        at,
        """update job set vouched_at = :now
            where state in ('claimed', 'running') and worker = :worker and (buffer_job_id is not null) = :buffer
              and id = (select job from claim_key where worker = :worker and key = :key and expires_at > :now)
            returning *""",
        _times(worker=worker, key=key, buffer=buffer),
    )


def request_cancel(at: Transaction, job_id: str) -> None:
    at.execute(
        "update job set cancel_requested = 1, updated_at = :utc where id = :id and state in ('claimed', 'running')",
        _times(id=job_id),
    )


def set_running(at: Transaction, job_id: str, progress: float, phase: str, metrics: str | None) -> None:
    """A running report: progress never goes down, even when the job has started over elsewhere."""
    at.execute(
        """update job set state = 'running', progress = max(progress, :progress), phase = :phase,
                   metrics = coalesce(:metrics, metrics), vouched_at = :now, updated_at = :utc
            where id = :id and state in ('claimed', 'running')""",
        _times(id=job_id, progress=progress, phase=phase, metrics=metrics),
    )


def finish(at: Transaction, job_id: str, state: str, outcome: dict[str, Any]) -> None:
    """End a job. `outcome`: detail, error, output_url, metrics (JSON text), each may be None."""
    at.execute(
        """update job set state = :state, detail = :detail, error = :error, output_url = :output_url,
                  metrics = coalesce(:metrics, metrics), finished_at = :utc, updated_at = :utc,
                  progress = case :state when 'succeeded' then 1.0 else progress end,
                  phase = case :state when 'succeeded' then 'completed' else 'failed' end
           where id = :id""",
        _times(id=job_id, state=state, **outcome),
    )


def requeue(at: Transaction, job_id: str, detail: str) -> None:
    at.execute(
        """update job set state = 'queued', worker = null, requeues = requeues + 1, phase = null, detail = :detail,
                  updated_at = :utc where id = :id""",
        _times(id=job_id, detail=detail),
    )


# ---- silence -----------------------------------------------------------------------------------------------------------

UNVOUCHED = "select * from job where state in ('claimed', 'running') and vouched_at <= ? order by number"


def any_unvouched(database: Database, since: float) -> bool:
    return bool(database.read(UNVOUCHED + " limit 1", since))


def unvouched(at: Transaction, since: float) -> list[Row]:
    """Assigned jobs that their worker has not confirmed since then."""
    return list(at.execute(UNVOUCHED, (since,)))


def shift_clocks(at: Transaction, gap_s: float) -> None:
    """Exclude a period during which we could not hear anyone."""
    values = _times(gap=gap_s)
    at.execute("update job set vouched_at = min(:now, vouched_at + :gap) where state in ('claimed', 'running')", values)
    at.execute("update worker set seen_at = min(:now, seen_at + :gap) where seen_at is not null", values)


def drop_old_keys(at: Transaction) -> None:
    at.execute("delete from claim_key where expires_at <= :now", _times())


# ---- workers and reports -----------------------------------------------------------------------------------------------


def keep_beat(at: Transaction, worker: str, queue: str, body: dict[str, Any]) -> None:
    at.execute(
        """insert into worker (id, queue, seen_at, beat, beat_at) values (:worker, :queue, :now, :beat, :utc)
           on conflict (id) do update set queue = :queue, seen_at = :now, beat = :beat, beat_at = :utc""",
        _times(worker=worker, queue=queue, beat=json.dumps(body)),
    )


def vouch(at: Transaction, worker: str, job_ids: list[str] | None) -> None:
    """A worker reports its jobs; None: it does not report them, and is assumed to have all that it was given."""
    at.execute(
        """update job set vouched_at = :now where state in ('claimed', 'running') and worker = :worker
            and (:ids is null or id in (select value from json_each(:ids))
                              or buffer_job_id in (select value from json_each(:ids)))""",
        _times(worker=worker, ids=None if job_ids is None else json.dumps(job_ids)),
    )


def cancelled_at(at: Transaction, worker: str) -> list[str]:
    """The jobs that a worker has and should give up."""
    rows = at.execute(
        """select id from job where state in ('claimed', 'running') and worker = ? and cancel_requested
           order by number""",
        (worker,),
    )
    return [row["id"] for row in rows]


def workers(database: Database) -> list[Row]:
    return database.read("select * from worker order by id")


def keep_report(at: Transaction, job_id: str, path: str, body: dict[str, Any], verdict: str) -> None:
    values = _times(job=job_id, worker=body.get("worker_id"), path=path, body=json.dumps(body), verdict=verdict)
    at.execute(
        "insert into report (job, worker, path, body, verdict, at) values (:job, :worker, :path, :body, :verdict, :utc)", values
    )


def _one(at: Transaction, sql: str, values: dict[str, Any] | tuple[Any, ...]) -> Row | None:
    rows: list[Row] = list(at.execute(sql, values))
    return rows[0] if rows else None


def _times(**values: Any) -> dict[str, Any]:
    return {**values, "now": clock.now(), "utc": clock.utc()}
