"""The orchestrator on PostgreSQL, for several orchestrators on several machines: running the statements of `database` there.

`:now` and `:utc` are the server's clock, read at each statement. This module must never show a password: no URL is repeated
in a message, and no text of the driver about an URL that it could not read.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from jobqueue.database import CommitUncertain, Row
from orchestrator.transaction import DatabaseUnavailable, Transaction, WrongDatabase

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.Connection[Row]

VERSION = 1
#: Names this program's advisory lock: of several that start at once, one creates the tables.
PREPARING = 0x47505552
#: How long a transaction is tried again, in seconds: a lost connection may be back at once. After that the client tries again.
PATIENCE_S = 2.0
#: For a server that vanishes without a word. What the URL says goes first.
CONNECTING = {
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "target_session_attrs": "read-write",
    "application_name": "orchestrator",
    "client_encoding": "utf8",
}
#: A client that stops in the middle of a transaction must not hold its rows for long, nor wait for long for others'.
LIMITS = """
set idle_in_transaction_session_timeout = '10s';
set statement_timeout = '10s';
set lock_timeout = '5s'
"""
CLOCKS = {
    "now": "cast(extract(epoch from clock_timestamp()) as double precision)",
    "utc": """to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')""",
}
#: Others were faster; the same transaction will find what they have written.
IN_THE_WAY = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)
#: An @, / or ? that is not encoded makes a part of the password the name of a host, which messages would show.
URL = r"postgres(ql)?://([^@/?#]*@)?[^@/?#]*(/[^@/?#]*)?(\?[^@#]*)?"


class Postgres:
    """A prepared database; see `transaction.Database`. `durable` is ignored: the server syncs many commits at once.

    One connection per thread, made anew after any error that is not `IN_THE_WAY`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()
        self._pid = os.getpid()
        self._is_down = False  # it has not come back in PATIENCE_S: all threads would be busy with waiting, and /health silent

    def read(self, sql: str, /, **values: Any) -> list[Row]:
        return self._patiently(lambda connection: _run(connection, sql, **values))

    def write(self, statements: Callable[[Transaction], T], *, durable: bool = True) -> T:
        return self._patiently(functools.partial(_write_once, statements))

    def _patiently(self, act: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + (0 if self._is_down else PATIENCE_S)
        while True:
            try:
                return act(self._connection())
            except psycopg.Error as error:
                is_lost = not isinstance(error, IN_THE_WAY) and self._give_up_connection()
                if not (is_lost or isinstance(error, IN_THE_WAY)) or time.monotonic() > deadline:
                    self._is_down = is_lost
                    raise DatabaseUnavailable(_one_line(error)) from error
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - jitter, not a secret

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            if os.getpid() != self._pid:
                raise RuntimeError("this object was made before a fork; a connection must not cross it")
            connection = self._local.connection = _connect(self._url)
            self._is_down = False
        return connection

    def _give_up_connection(self) -> bool:
        """Whether it was lost already. If not, it may lead to a server that only reads by now, after a failover."""
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is None or connection.closed:
            return True
        connection.close()
        return False


def _write_once(statements: Callable[[Transaction], T], connection: Connection) -> T:
    is_ready = False
    try:
        with connection.transaction():
            value = statements(functools.partial(_run, connection))
            is_ready = True
    except psycopg.Error as error:
        if is_ready:
            raise CommitUncertain(_one_line(error)) from error
        raise
    return value


def _run(connection: Connection, sql: str, /, **values: Any) -> list[Row]:
    cursor = connection.execute(_in_postgres(sql), {name: _storable(value) for name, value in values.items()})
    return cursor.fetchall() if cursor.description else []


@functools.cache
def _in_postgres(sql: str) -> str:
    return re.sub(r":([a-z]\w*)", lambda name: CLOCKS.get(name[1], f"%({name[1]})s"), sql)


def _storable(value: Any) -> Any:
    """The value; without NUL, which SQLite's texts may hold and PostgreSQL's may not: a report of it must not be lost."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _connect(url: str) -> Connection:
    given = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    conninfo = make_conninfo("", **{**CONNECTING, **given})
    connection = psycopg.connect(conninfo, autocommit=True, row_factory=dict_row, prepare_threshold=None)
    connection.execute(LIMITS)
    return connection


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ---- the start ---------------------------------------------------------------------------------------------------------


def secrets(url: str) -> list[str]:
    """What must not appear in a log. Raises WrongDatabase for an URL that cannot be used, without showing it."""
    try:
        if not re.fullmatch(URL, url):
            raise psycopg.ProgrammingError
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise WrongDatabase(
            "DATABASE_URL: must look like postgresql://user:password@host:5432/name; in the password write %40 for @, "
            "%2F for /, %3A for :, %3F for ?, %23 for # and %25 for %"
        ) from None
    return [str(value) for name, value in given.items() if "password" in name and value]


def place(url: str) -> str:
    """Where the database is, for people."""
    given = conninfo_to_dict(url)
    return f"PostgreSQL database {given.get('dbname') or 'of the user'} at {given.get('host') or 'this machine'}"


def prepare(url: str) -> None:
    """Create the tables if there are none. Raises WrongDatabase with a line for the user."""
    try:
        with _connect(url) as connection, connection.transaction():
            if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
                raise WrongDatabase(f"DATABASE_URL: the {place(url)} has encoding {encoding}; create it with encoding UTF8")
            connection.execute("select pg_advisory_xact_lock(%s)", [PREPARING])
            found = connection.execute("select tablename from pg_tables where schemaname = current_schema()").fetchall()
            _create(connection, {row["tablename"] for row in found}, place(url))
    except psycopg.OperationalError as error:
        raise WrongDatabase(f"DATABASE_URL: the server does not let us in: {_one_line(error)}") from None
    except psycopg.Error as error:
        raise WrongDatabase(f"DATABASE_URL: cannot create tables in the {place(url)}: {_one_line(error)}") from None


def _create(connection: Connection, tables: Iterable[str], where: str) -> None:
    if not tables:
        connection.execute(Path(__file__).with_name("postgres.sql").read_text())
        return
    if "orchestrator" not in tables:
        raise WrongDatabase(f"DATABASE_URL: the {where} has other tables than an orchestrator's; give it a database of its own")
    version = connection.execute("select version from orchestrator").fetchall()[0]["version"]
    if version != VERSION:
        raise WrongDatabase(f"DATABASE_URL: the {where} has version {version}, this program supports {VERSION}; update it")
