"""The statements that run all day use their indexes: the work of a look must not grow with history."""

from __future__ import annotations

import pytest

from jobqueue import glance, outbox, statements
from jobqueue.queue import Queue

HOT = {
    "next": (statements.NEXT, "job_number"),
    "take": (statements.TAKE, "sqlite_autoindex_job_1"),
    "due": (outbox._DUE, "event_unsent"),
    "working": (statements.WORKED_ON, "job_number"),
    "page": ("select * from job where state in ('failed') and number < 9 order by number desc limit 5", "job_number"),
    "history": ("select * from event where job = 'a' order by id", "event_job"),
    "reports": (outbox._REPORTS, "report_job"),
    "told": (glance.TOLD, "report_job"),
    "thin": (outbox._THIN, "report_job"),
    "trim": (outbox._TRIM, "report_running"),
    "version": (glance.VERSION, "event_unsent"),
    "ended": (glance.ENDED, "job_finished"),
}


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_use_their_index(queue: Queue, name: str) -> None:
    sql, index = HOT[name]
    names = dict.fromkeys(("working", "owner", "at", "waiting", "now", "id", "program"), "ready")
    names |= dict.fromkeys(("job", "round", "ends", "most", "all"), "0")
    values = ("0",) * sql.count("?")
    explain = "explain query plan " + sql
    rows = queue.database.read(explain, **names) if ":" in sql else queue.database.read(explain, *values)
    plan = " / ".join(row["detail"] for row in rows)
    assert index in plan, plan
    assert "SCAN job" not in plan.replace("SCAN job USING INDEX", ""), plan
