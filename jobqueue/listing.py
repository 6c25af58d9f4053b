"""Jobs as lines of a list: filtered, sorted, a page at a time, without what is large in them.

Paging goes on from the last line's key, so that a page deep in the list costs what the first one does and none is shown
twice while new jobs arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jobqueue.database import Database
from jobqueue.statements import HAS_TEXT

#: What a list is sorted by: the expression, and the index that has it.
SORTS = {
    "newest": ("number", "sqlite_autoindex_job_2"),
    "slowest": ("unixepoch(finished_at, 'subsec') - unixepoch(started_at, 'subsec')", "job_took"),
    "biggest": ("json_extract(result, '$.size_bytes')", "job_size"),
}
#: What must hold for a job to be in the index of its sort.
_IN_INDEX = {
    "newest": "1",
    "slowest": "finished_at is not null and started_at is not null",
    "biggest": "state = 'succeeded' and json_extract(result, '$.size_bytes') is not null",
}
#: An error text longer than this is not read for a line.
LONG_ERROR = 100_000

_COLUMNS = f"""id, number, engine, source, state, round, attempt, owner, progress, created_at, started_at, finished_at,
    substr(cancel_reason, 1, 500) as cancel_reason,
    case when octet_length(error) <= {LONG_ERROR} then substr(json_extract(error, '$.message'), 1, 500)
        when error is not null then 'an error text of ' || octet_length(error) || ' bytes' end as message,
    json_extract(result, '$.size_bytes') as size_bytes"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which jobs, and from where on.

    states   () for all
    engine   the shape of the job, musetalk or fastwan; "" for all
    text     is in the id or in the error; "" for all
    since    UTC text: only jobs that ended later or have not ended; "" for all
    after    (key, number) of the line before; None for the first page
    """

    states: tuple[str, ...] = ()
    engine: str = ""
    text: str = ""
    since: str = ""
    sort: str = "newest"
    after: tuple[float, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """A job in a list. message: why it failed, cut. key: what it is sorted by."""

    id: str
    number: int
    engine: str
    source: str
    state: str
    round: int
    attempt: int
    owner: str | None
    progress: float
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_reason: str | None
    message: str | None
    size_bytes: int | None
    key: float


def lines(database: Database, wanted: Wanted, limit: int) -> list[Line]:
    """The next lines of the list, at most `limit`."""
    sql, values = statement(wanted, limit)
    return [Line(**row) for row in database.read(sql, *values)]


def all_lines(database: Database, wanted: Wanted, most: int, at_once: int = 500) -> Iterator[Line]:
    """Line after line, read a piece at a time."""
    while most > 0:
        found = lines(database, wanted, min(at_once, most))
        yield from found
        if len(found) < min(at_once, most):
            return
        most -= len(found)
        wanted = replace(wanted, after=(found[-1].key, found[-1].number))


def statement(wanted: Wanted, limit: int) -> tuple[str, list[Any]]:
    """The SQL of a page and its values."""
    key, index = SORTS[wanted.sort]
    where, values = [_IN_INDEX[wanted.sort]], list[Any]()
    if wanted.after is not None:
        where.append("number < ?" if wanted.sort == "newest" else f"({key}, number) < (?, ?)")
        values += [wanted.after[1]] if wanted.sort == "newest" else list(wanted.after)
    if wanted.states:
        where.append(f"state in ({', '.join('?' * len(wanted.states))})")
        values += wanted.states
    if wanted.engine:
        where.append("engine = ?")
        values.append(wanted.engine)
    if wanted.since:
        where.append("(finished_at is null or finished_at >= ?)")
        values.append(wanted.since)
    if wanted.text:
        where.append(HAS_TEXT)
        values += [wanted.text, wanted.text]
    order = "number desc" if wanted.sort == "newest" else f"{key} desc, number desc"
    source = "job" if wanted.sort == "newest" else f"job indexed by {index}"
    page = f"select {_COLUMNS}, {key} as key from {source} where {' and '.join(where)} order by {order} limit ?"  # noqa: S608
    return page, [*values, limit]
