"""Cancel and retry of many jobs, each in one commit: a hundred single ones would take a hundred times the disk's patience."""

from __future__ import annotations

from typing import Any

import apsw

from jobqueue import clock
from jobqueue import statements as sql
from jobqueue.queue import Queue
from jobqueue.wake import EVERYONE


def cancel(queue: Queue, job_ids: list[str], reason: str) -> list[str]:
    """Ask for jobs to end: at once where they wait, through their owners where they are worked on. Returns those not over."""

    def statements(connection: apsw.Connection) -> list[str]:
        done = []
        for job_id in job_ids:
            values = {"id": job_id, "reason": reason, "at": clock.utc()}
            if list(connection.execute(sql.REQUEST_CANCEL, values)):
                list(connection.execute(sql.CANCEL_WAITING, values))
                done.append(job_id)
        return done

    done = queue.database.write(statements)
    queue.bell.poke(*EVERYONE)
    return done


def retry(queue: Queue, job_ids: list[str]) -> list[str]:
    """New rounds of those of the jobs that are failed or cancelled; returns their ids."""

    def statements(connection: apsw.Connection) -> list[str]:
        return [job_id for job_id in job_ids if list(connection.execute(sql.NEW_ROUND, _round(connection, job_id)))]

    done = queue.database.write(statements)
    queue.bell.poke(*EVERYONE)
    return done


def _round(connection: apsw.Connection, job_id: str) -> dict[str, Any]:
    """As it was: who sent it is who is answered."""
    asked = "select source, buffer_job_id, queue_job_id from job where id = ?"
    values: dict[str, Any] = dict.fromkeys(("source", "buffer_job_id", "queue_job_id"))
    for row in list(connection.execute(asked, (job_id,))):
        values |= row
    return values | {"id": job_id, "now": clock.now(), "at": clock.utc()}
