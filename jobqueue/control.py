"""The state of the worker as a whole: paused, draining, unfit; each program's status; pending claims; the audit trail.

The flags, each a row while it is set, its value a JSON object with a reason:
    paused     no job is claimed or started; running jobs finish
    draining   no job is claimed; the container exits when every job is done and reported
    unfit      a program has found the GPU, the weights or the store unusable: like paused, and reported; one row per program
    hold       the clock jumped: unfinished jobs are being checked before more GPU time is spent on them

A pause may expire and a hold does (`until`), a drain ends at its deadline in any case (`deadline`). Each time is stored twice,
as UTC text for display and on the boot clock, which alone decides, so that changes of the wall clock do not matter. Every
reader of a flag obeys it.
"""

from __future__ import annotations

import json
import logging
import secrets
from datetime import UTC, datetime
from typing import Any, Literal

import apsw

from jobqueue import clock
from jobqueue.database import ERRORS, Database, Row
from jobqueue.statements import FLAGS, HOLDS

log = logging.getLogger(__name__)

Flag = Literal["paused", "draining", "unfit", "hold"]
#: The flags under which no job is claimed, the worst first.
CLOSED: tuple[Flag, ...] = ("unfit", "draining", "paused")

#: A program that has not published its status for this long is considered dead, in seconds.
STALE_S = 30.0
#: A session expires after this long without a request, and after this long in any case, in seconds.
IDLE_S = 12 * 3600.0
MAX_SESSION_S = 7 * 24 * 3600.0

_OVER = "(created_at < ? or seen_at < ?)"
_NOTE = "insert into audit (at, actor, action, target, reason, result) values (?, ?, ?, ?, ?, ?)"


def closed(flags: dict[str, Any]) -> Flag | None:
    """The worst of these flags under which no job is claimed: in one word, how the worker is."""
    return next((flag for flag in CLOSED if flag in flags), None)


class Control:
    """Flags, status and audit rows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def flag(self, name: Flag) -> dict[str, Any] | None:
        """The flag's value ({"reason": …, "by": …, "at": …}), or None if it is not set."""
        return self.flags().get(name)

    def flags(self) -> dict[str, dict[str, Any]]:
        """All set flags by name. If several programs are unfit, the first one's value."""
        sql = f"select name, value from control where {FLAGS} and {HOLDS} order by rowid desc"  # noqa: S608
        rows = self.database.read(sql, now=clock.now())
        return {row["name"].split(" ")[0]: json.loads(row["value"]) for row in rows}

    def put_up(self, name: Flag, reason: str, by: str, **ends_s: float) -> bool:
        """Set a flag. False if it is set already (its reason stays).

        ends_s: `until` or `deadline`, in seconds from now.
        """
        row = _row(name, by)
        value: dict[str, Any] = {"reason": reason, "by": by, "at": clock.utc()}
        for end, seconds in ends_s.items():
            value |= {end: clock.utc(seconds), f"{end}_boot_s": clock.now() + seconds}

        def statements(connection: apsw.Connection) -> bool:
            lapsed = f"delete from control where name = :name and not {HOLDS}"  # noqa: S608
            list(connection.execute(lapsed, {"name": row, "now": clock.now()}))
            raised = "insert or ignore into control values (?, ?, ?) returning 1 as one"
            return bool(list(connection.execute(raised, (row, json.dumps(value), clock.utc()))))

        return self.database.write(statements)

    def take_down(self, name: Flag, by: str = "") -> bool:
        """Clear a flag; of `unfit` only the row of `by`. False if it was not set."""
        sql = f"delete from control where name = :name returning {HOLDS} as held"  # noqa: S608
        rows = self._write(sql, name=_row(name, by), now=clock.now())
        return any(row["held"] for row in rows)

    def lapsed(self) -> dict[str, dict[str, Any]]:
        """Remove expired flags; returns them by name. It writes only if there are any."""
        over = f"from control where name = 'paused' and not {HOLDS}"
        if not self.database.read(f"select 1 {over}", now=clock.now()):
            return {}
        return {row["name"]: json.loads(row["value"]) for row in self._write(f"delete {over} returning *", now=clock.now())}

    # ---- restarts that wait for a job's end -------------------------------------------------------------------------------

    def ask_restart(self, program: str, reason: str, by: str, pid: int | None) -> bool:
        """Restart a program after its current job; it takes no job until then.

        pid: the process to end. False if that was requested already."""
        value = json.dumps({"reason": reason, "by": by, "at": clock.utc(), "pid": pid})
        sql = "insert or ignore into control values ('restart ' || ?, ?, ?) returning 1 as one"
        return bool(self._write(sql, program, value, clock.utc()))

    def restarts(self) -> dict[str, dict[str, Any]]:
        """The pending restarts, by program."""
        rows = self.database.read("select name, value from control where name glob 'restart *'")
        return {row["name"].removeprefix("restart "): json.loads(row["value"]) for row in rows}

    def end_restart(self, program: str) -> None:
        """The program's restart is done, or no longer wanted."""
        self._write("delete from control where name = 'restart ' || ?", program)

    # ---- how often in a row the card was lost, which ends the process each time -------------------------------------------

    def card_lost(self) -> int:
        """Note that the card was lost; returns how often in a row."""
        sql = """insert into control values ('card lost', json_object('count', 1, 'at_boot_s', :now), :at)
            on conflict (name) do update set updated_at = :at,
            value = json_object('count', json_extract(value, '$.count') + 1, 'at_boot_s', :now) returning value"""
        return int(json.loads(self._write(sql, now=clock.now(), at=clock.utc())[0]["value"])["count"])

    def card_losses(self) -> tuple[int, float]:
        """How often in a row the card was lost, and how many seconds ago the last time was."""
        rows = self.database.read("select value from control where name = 'card lost'")
        known = json.loads(rows[0]["value"]) if rows else {"count": 0, "at_boot_s": 0.0}
        return int(known["count"]), clock.now() - float(known["at_boot_s"])

    def card_works(self) -> None:
        """A job succeeded with it."""
        self._write("delete from control where name = 'card lost'")

    # ---- files that are to go ----------------------------------------------------------------------------------------------

    def ask_discard(self, job_ids: list[str]) -> None:
        """Request deletion of the files of these jobs; the poller's janitor does it."""
        rows = [(job_id, clock.utc()) for job_id in job_ids]
        sql = "insert or ignore into control values ('discard ' || ?, '', ?)"
        self.database.write(lambda connection: connection.executemany(sql, rows).fetchall())

    def discards(self) -> list[str]:
        """The jobs whose files are to be deleted."""
        rows = self.database.read("select name from control where name glob 'discard *'")
        return [row["name"].removeprefix("discard ") for row in rows]

    def end_discard(self, job_id: str) -> None:
        """The job's files are deleted, or are to be kept after all."""
        self._write("delete from control where name = 'discard ' || ?", job_id)

    # ---- what programs say ------------------------------------------------------------------------------------------------

    def publish(self, program: str, body: dict[str, Any]) -> None:
        """Publish a program's status for the other programs. It is dropped if the queue cannot be written: the next one is as
        good, and no program may die because its status was lost."""
        sql = "insert or replace into status (program, body, at, at_boot) values (?, ?, ?, ?)"
        values = (program, json.dumps(body), clock.utc(), clock.now())
        try:
            self.database.try_write(lambda connection: connection.execute(sql, values))
        except ERRORS as error:
            log.warning("the status of %s could not be written: %s", program, error)

    def published(self) -> dict[str, dict[str, Any]]:
        """The last status of each program, with `at` (UTC text) and `age_s` (seconds ago) added."""
        now = clock.now()
        rows = self.database.read("select * from status")
        return {r["program"]: {**json.loads(r["body"]), "at": r["at"], "age_s": max(0.0, now - r["at_boot"])} for r in rows}

    def begin_claim(self) -> str:
        """A key for the next claim, kept until its answer is in the queue; the same key again if we died in between."""
        rows = self.database.read("select key from claim_intent order by created_at limit 1")
        if rows:
            return str(rows[0]["key"])
        key = secrets.token_hex(16)
        self._write("insert into claim_intent (key, created_at) values (?, ?)", key, clock.utc())
        return key

    def end_claim(self, key: str) -> None:
        """The claim with this key brought no job."""
        self._write("delete from claim_intent where key = ?", key)

    def note(self, actor: str, action: str, target: str | None, reason: str | None, result: str) -> None:
        """An audit row: who did what, to what, why, and the result."""
        self._write(_NOTE, clock.utc(), actor, action, target, reason, result)

    def note_all(self, actor: str, action: str, results: dict[str, str], reason: str | None) -> None:
        """An audit row for each of many targets, in one commit. results: by target."""
        rows = [(clock.utc(), actor, action, target, reason, result) for target, result in results.items()]
        self.database.write(lambda connection: connection.executemany(_NOTE, rows).fetchall())

    def notes(self, limit: int = 50, text: str = "", before: int | None = None) -> list[Row]:
        """The newest audit rows that contain a text, newest first. `before`: the id to continue from."""
        held = "instr(lower(concat_ws(' ', at, actor, action, target, reason, result)), lower(?)) > 0"
        sql = f"select * from audit where id < ? and {held} order by id desc limit ?"  # noqa: S608
        return self.database.read(sql, before if before is not None else 2**62, text, limit)

    # ---- log-ins to the page ----------------------------------------------------------------------------------------------

    def begin_session(self, hashed: str, address: str, agent: str, now_s: float) -> None:
        """Store a session; only the hash of its id. now_s: wall seconds, because it must survive a reboot."""
        self._write("insert into session values (?, ?, ?, ?, ?)", hashed, now_s, now_s, address, agent[:200])

    def session(self, hashed: str) -> Row | None:
        rows = self.database.read("select * from session where hash = ?", hashed)
        return rows[0] if rows else None

    def sessions(self) -> list[Row]:
        """Every stored session, the most recently used first; its hash is not secret."""
        return self.database.read("select * from session order by seen_at desc")

    def touch_session(self, hashed: str, now_s: float) -> None:
        sql = "update session set seen_at = ? where hash = ?"
        self.database.write(lambda connection: connection.execute(sql, (now_s, hashed)).fetchall(), durable=False)

    def sessions_over(self, now_s: float) -> int:
        """How many expired sessions are still stored."""
        rows = self.database.read(f"select count(*) as n from session where {_OVER}", now_s - MAX_SESSION_S, now_s - IDLE_S)  # noqa: S608
        return int(rows[0]["n"])

    def forget_sessions(self, now_s: float) -> int:
        """Delete them; returns how many there were."""
        return len(self._write(f"delete from session where {_OVER} returning 1 as one", now_s - MAX_SESSION_S, now_s - IDLE_S))  # noqa: S608

    def offer_login(self, hashed: str, until_s: float) -> None:
        """Store the hash of a one-time login code, valid until these wall seconds. An older code stops working."""
        value = json.dumps({"hash": hashed, "until_s": until_s})
        self._write("insert or replace into control values ('login_code', ?, ?)", value, clock.utc())

    def use_login(self, hashed: str, now_s: float) -> bool:
        """Whether this is the valid code. That uses it up."""
        sql = """delete from control where name = 'login_code' and json_extract(value, '$.hash') = ?
            and json_extract(value, '$.until_s') > ? returning 1 as one"""
        return bool(self._write(sql, hashed, now_s))

    def end_sessions(self, hashed: str | None = None) -> None:
        """End one session, or all of them."""
        self._write("delete from session where ? is null or hash = ?", hashed, hashed)

    def _write(self, sql: str, *values: Any, **named: Any) -> list[Row]:
        return self.database.write(lambda connection: list(connection.execute(sql, named or values)))


def _row(name: Flag, by: str) -> str:
    """The name of a flag's row: each unfit program has its own, and clears only that."""
    return f"unfit {by}" if name == "unfit" else name


def rebased(value: dict[str, Any]) -> dict[str, Any]:
    """A flag's value after a reboot: its expiry on the new boot clock, from the wall time, which is all that is left."""
    ends = [name.removesuffix("_boot_s") for name in value if name.endswith("_boot_s")]
    now = datetime.now(UTC)
    left_s = {end: (datetime.fromisoformat(value[end]) - now).total_seconds() for end in ends}
    return value | {f"{end}_boot_s": clock.now() + seconds for end, seconds in left_s.items()}
