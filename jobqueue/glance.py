"""What the page asks at every look, in a few statements whose cost does not grow with history."""

from __future__ import annotations

import hashlib
import json

from jobqueue.database import Database

VERSION = """
select (select max(id) from event) as events, (select count(*) from event where sent_at is null and ends) as unsent,
    (select sum(tries) from event where sent_at is null and ends) as tries,
    (select group_concat(updated_at || coalesce(cancel_reason, '')) from job
        where state in ('fetching', 'generating', 'uploading')) as working,
    (select min(number) from job) as first, (select max(number) from job) as last,
    (select max(id) from audit) as notes, (select group_concat(name || value) from control) as control,
    (select group_concat(program || at) from status) as status"""

ENDED = "select state, count(*) as n from job indexed by job_finished where finished_at >= ? group by state"


def version(database: Database) -> str:
    """A text that is another one as soon as anything that a page shows has changed."""
    row = database.read(VERSION)[0]
    return hashlib.sha256(json.dumps(list(row.values())).encode()).hexdigest()[:16]


def ended(database: Database, since: str) -> dict[str, int]:
    """How many jobs ended in each way since a time (UTC text)."""
    return {row["state"]: row["n"] for row in database.read(ENDED, since)}
