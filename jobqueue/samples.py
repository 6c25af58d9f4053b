"""What each GPU did in the last day, for the page: written by the poller every second, read by whoever draws it.

A file of its own beside the queue, because the queue's commits are synced and counted: a row a second there would fill its
WAL four times an hour for nothing, and the checkpoint would be paid by whichever program commits next. Nothing here is
worth an fsync, a migration or a repair: a file that is broken or of another version is deleted and recreated.
Bounded: 20 minutes of seconds and a day of ten-second means are about 10,000 rows a card, a megabyte and a half.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

from jobqueue import clock
from jobqueue.database import Database, Row, connect

log = logging.getLogger(__name__)

VERSION = 2
#: Seconds that a row stands for, and how long such rows are kept (s).
FINE_S, COARSE_S = 1, 10
KEPT_S = {FINE_S: 20 * 60, COARSE_S: 24 * 3600}
#: A time of day that moved by more than this against the boot clock has jumped (s).
JUMP_S = 5.0

#: Columns of a sample, and the reading (`telemetry.gpu.GAUGES`) that each is.
COLUMNS = {
    "load": "utilization_gpu",
    "memory_load": "utilization_memory",
    "encoder": "utilization_encoder",
    "decoder": "utilization_decoder",
    **{
        name: name
        for name in (
            *("memory_used_mib", "memory_total_mib", "temperature_c", "memory_temperature_c", "power_w", "power_limit_w"),
            *("clock_sm_mhz", "clock_memory_mhz"),
        )
    },
}
_NAMES = ", ".join(COLUMNS)
_MEANS = ", ".join(f"avg({name}) as {name}" for name in COLUMNS)


def samples_file(data_dir: Path) -> Path:
    """Where the samples are."""
    return data_dir / "telemetry.db"


def card_of(reading: Mapping[str, Any]) -> str:
    """The name of a card among the samples."""
    return str(reading.get("uuid") or f"#{reading.get('index')}")


class Writing:
    """The writer. Prepares the file at the start; every method may raise `jobqueue.database.ERRORS`."""

    def __init__(self, path: Path) -> None:
        self._database = _begun(path)
        newest = self._database.read("select max(at) as at from sample where step = ?", FINE_S)[0]["at"]
        self._coarse_at: int | None = None if newest is None else newest // COARSE_S

    def add(self, readings: Sequence[Mapping[str, Any]], now_s: float | None = None) -> None:
        """Store the current readings (`telemetry.gpu.gauges`); delete old ones. now_s: wall seconds."""
        now_s = time.time() if now_s is None else now_s
        at = int(now_s)
        rows = [(FINE_S, at, card_of(card), *(card.get(reading) for reading in COLUMNS.values())) for card in readings]
        held = [(FINE_S, at, card_of(card), reason, 1.0) for card in readings for reason in card.get("throttle_reasons") or ()]

        def statements(connection: apsw.Connection) -> None:
            _heed_clock(connection, now_s)
            marks = ", ".join("?" * (3 + len(COLUMNS)))
            connection.executemany(f"insert or replace into sample (step, at, card, {_NAMES}) values ({marks})", rows)  # noqa: S608
            connection.executemany("insert or replace into held values (?, ?, ?, ?, ?)", held)
            if self._coarse_at is not None and self._coarse_at != at // COARSE_S:
                _condense(connection, self._coarse_at * COARSE_S)
            _drop_old(connection, at)

        self._database.write(statements, durable=False)
        self._coarse_at = at // COARSE_S

    def close(self) -> None:
        self._database.close()


class Samples:
    """The reader. Without a readable file there are no samples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: Database | None = None
        self._inode: int | None = None

    def columns(self, after: int, step_s: int) -> dict[str, dict[str, list[Any]]]:
        """By card: "at" (wall seconds) and each of COLUMNS, as lists of one length, oldest first.

        after: only what began later. step_s: seconds that a point is the mean of; multiples of COARSE_S are made from the
        coarse rows, others are 1. A point that is not complete yet is left out.
        """
        kept = COARSE_S if step_s >= COARSE_S else FINE_S
        lists = ", ".join(f"json_group_array({name}) as {name}" for name in COLUMNS)
        means = ", ".join(f"round(avg({name}), 1) as {name}" for name in COLUMNS)
        sql = f"""select json_group_array(point) as at, {lists} from (
            select at / :step * :step as point, {means} from sample
            where step = :kept and at >= :first and at < :last and card = :card group by point order by point)"""  # noqa: S608
        first, last = (after // step_s + 1) * step_s, int(time.time()) // step_s * step_s
        span = {"kept": kept, "first": first, "last": last + (kept == FINE_S)}
        cards = "select distinct card from sample where step = :kept and at >= :first and at < :last"
        found = {row["card"]: self._read(sql, step=step_s, card=row["card"], **span) for row in self._read(cards, **span)}
        return {card: {name: json.loads(rows[0][name]) for name in ("at", *COLUMNS)} for card, rows in found.items() if rows}

    def extremes(self, since: float, until: float) -> dict[str, Row]:
        """By card: least, mean and most of each of COLUMNS between two times, as load_min, load_mean, load_max …"""
        kinds = {"min": "min", "mean": "avg", "max": "max"}
        wanted = ", ".join(f"{function}({name}) as {name}_{word}" for name in COLUMNS for word, function in kinds.items())
        step = FINE_S if since >= time.time() - KEPT_S[FINE_S] - COARSE_S else COARSE_S
        sql = f"select card, {wanted} from sample where step = :step and at >= :since and at <= :until group by card"  # noqa: S608
        rows = self._read(sql, step=step, since=int(since) // step * step, until=int(until))
        return {row.pop("card"): row for row in rows}

    def held(self, since: float) -> dict[str, dict[str, float]]:
        """By card: the share of the time since then in which each reason held its clocks back."""
        seconds = "select card, count(*) * :step as seconds from sample where step = :step and at >= :since group by card"
        reasons = """select card, reason, sum(seconds) as seconds from held where step = :step and at >= :since
            group by card, reason order by 3 desc"""
        known = {row["card"]: row["seconds"] for row in self._read(seconds, step=COARSE_S, since=int(since))}
        found: dict[str, dict[str, float]] = {card: {} for card in known}
        for row in self._read(reasons, step=COARSE_S, since=int(since)):
            if row["card"] in known:
                found[row["card"]][row["reason"]] = min(1.0, row["seconds"] / known[row["card"]])
        return found

    def mark(self) -> tuple[int, int]:
        """The newest row's time and how often all rows were shifted: whoever has drawn them must redraw after a shift."""
        rows = self._read("select (select max(at) from sample where step = 1) as newest, (select moved from clock) as moved")
        return (rows[0]["newest"] or 0, rows[0]["moved"] or 0) if rows else (0, 0)

    def _read(self, sql: str, **values: Any) -> list[Row]:
        try:
            inode = os.stat(self._path).st_ino
            if self._database is None or inode != self._inode:  # created, or recreated
                self._database, self._inode = Database(self._path), inode
            return self._database.read(sql, **values)
        except (OSError, apsw.Error, RuntimeError) as error:
            log.debug("no samples: %s", error)
            return []


def _begun(path: Path) -> Database:
    """The file, recreated unless it is intact and of this version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _is_sound(path):
        log.warning("the GPU history in %s cannot be read; starting a new one", path)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = connect(path, durable=False, create=True)
    try:
        if connection.pragma("user_version") != VERSION:
            connection.execute("begin immediate")
            connection.execute(Path(__file__).with_suffix(".sql").read_text())
            connection.execute(f"pragma user_version = {VERSION}")
            connection.execute("insert into clock values (?, ?, 0)", (clock.boot_id(), time.time() - clock.now()))
            connection.execute("commit")
    finally:
        connection.close()
    return Database(path)


def _is_sound(path: Path) -> bool:
    with contextlib.suppress(apsw.Error):
        connection = apsw.Connection(str(path))
        try:
            return bool(connection.pragma("user_version") == VERSION and connection.pragma("quick_check") == "ok")
        finally:
            connection.close()
    return False


def _heed_clock(connection: apsw.Connection, now_s: float) -> None:
    """After a jump of the wall clock, shift every row by as much, so that its age stays the same."""
    ahead_s, boot = now_s - clock.now(), clock.boot_id()
    (row,) = list(connection.execute("select * from clock"))
    if row["boot"] == boot and abs(ahead_s - row["ahead_s"]) <= JUMP_S:
        return
    moved_s = int((ahead_s - row["ahead_s"]) // COARSE_S * COARSE_S) if row["boot"] == boot else 0
    for table in ("sample", "held") if moved_s else ():
        # by way of negative times, where no row is in the way of another
        connection.execute(f"update {table} set at = -(at + ?)", (moved_s,))  # noqa: S608
        connection.execute(f"update {table} set at = -at")  # noqa: S608
    for table in ("sample", "held"):
        connection.execute(f"delete from {table} where at > ?", (int(now_s),))  # noqa: S608 - of a boot whose clock was ahead
    connection.execute("update clock set boot = ?, ahead_s = ?, moved = moved + 1", (boot, ahead_s))


def _condense(connection: apsw.Connection, at: int) -> None:
    """Ten fine rows, a card, become one coarse one."""
    span = {"fine": FINE_S, "coarse": COARSE_S, "at": at, "end": at + COARSE_S}
    connection.execute(
        f"""insert or replace into sample (step, at, card, {_NAMES}) select :coarse, :at, card, {_MEANS} from sample
            where step = :fine and at >= :at and at < :end group by card""",  # noqa: S608
        span,
    )
    connection.execute(
        """insert or replace into held select :coarse, :at, card, reason, sum(seconds) from held
            where step = :fine and at >= :at and at < :end group by card, reason""",
        span,
    )


def _drop_old(connection: apsw.Connection, at: int) -> None:
    for table in ("sample", "held"):
        for step, kept_s in KEPT_S.items():
            connection.execute(f"delete from {table} where step = ? and at < ?", (step, at - kept_s))  # noqa: S608
