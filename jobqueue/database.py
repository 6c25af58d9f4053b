"""The connection: nothing else opens the database file, and nothing may read it by other means.

SQLite comes from `apsw`, because the builds of most distributions have the WAL-reset bug (fixed in 3.51.3, backported to
3.50.7 and 3.44.6) that loses rows when processes checkpoint side by side. Opening, copying or hashing the file from a
process that has a connection drops its locks and loses commits silently: sizes come from `os.stat`, copies from `VACUUM INTO`.
One connection a thread, opened after fork. Writers queue at a flock (the turnstile) because SQLite's own waiting is unfair;
it is for fairness only, never for correctness.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import apsw

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]

#: Whatever SQLite can raise, for modules that do not import it.
DatabaseError = apsw.Error

BUSY_TIMEOUT_MS = 10_000
#: How long a write is retried while the database is busy or the disk is full, in seconds.
PATIENCE_S = 30.0
#: Freed when the disk is full, so that the moves that free more can still be committed.
RESERVE_BYTES = 4 * 1024 * 1024

PRAGMAS = (
    "pragma foreign_keys = on",
    "pragma trusted_schema = off",
    "pragma mmap_size = 0",
    "pragma journal_size_limit = 8388608",
    "pragma wal_autocheckpoint = 1000",
)


class CommitUncertain(Exception):
    """COMMIT raised: the change may be there or not. Look, then decide."""


#: What `read` and `write` raise if the file or its disk fails, for loops that continue when it works again.
ERRORS: tuple[type[Exception], ...] = (apsw.Error, CommitUncertain)


def check_library(version: str | None = None) -> None:
    """Raise RuntimeError if the SQLite library in this process can corrupt a WAL database."""
    text = version or library_version()
    number = tuple(int(part) for part in text.split("."))
    fixed = number >= (3, 51, 3) or (3, 50, 7) <= number < (3, 51) or (3, 44, 6) <= number < (3, 45)
    if not fixed or number[:2] == (3, 52):
        raise RuntimeError(f"SQLite {text} can corrupt the queue; install apsw 3.51.3 or later (but not 3.52)")


def library_version() -> str:
    """The version of the SQLite in this process."""
    return str(apsw.sqlite_lib_version())


class Database:
    """Connections to one file, one a thread and durability, made when first used.

    patience_s: how long a write waits for others before it fails, for programs in which someone waits for the answer.
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        check_library()
        self.path = path
        self._patience_s = patience_s
        self._local = threading.local()
        self._pid = os.getpid()

    def read(self, sql: str, *args: Any, **named: Any) -> list[Row]:
        """One statement, fetched whole: an open cursor would keep the WAL from being reused."""
        return list(self._connection(True).execute(sql, named or args))

    def write(self, statements: Callable[[apsw.Connection], T], *, durable: bool = True) -> T:
        """Run `statements` in one transaction and commit it; retried while the file is busy or the disk full.

        durable=False skips the fsync: for progress and status, which the next durable commit makes durable too.
        Raises CommitUncertain if COMMIT itself failed.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._write_once(statements, durable, deadline)
            except (apsw.BusyError, apsw.LockedError):
                if time.monotonic() > deadline:
                    raise
            except apsw.FullError:
                if not self._free_reserve() and time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - jitter, not a secret

    def try_write(self, statements: Callable[[apsw.Connection], object]) -> None:
        """`write` for what may be lost: not synced, not retried, and never using the reserve. Raises ERRORS."""
        self._write_once(statements, False, time.monotonic() + self._patience_s)

    def close(self) -> None:
        """Close this thread's connections."""
        for name in ("durable", "quick"):
            if (connection := getattr(self._local, name, None)) is not None:
                connection.close()
                delattr(self._local, name)
        if (gate := getattr(self._local, "gate", None)) is not None:
            os.close(gate)
            del self._local.gate

    def _write_once(self, statements: Callable[[apsw.Connection], T], durable: bool, deadline: float) -> T:
        connection = self._connection(durable)
        with self._turnstile(deadline):
            connection.execute("begin immediate")
            try:
                value = statements(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
            try:
                connection.execute("commit")
            except (apsw.BusyError, apsw.FullError):
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
            except apsw.Error as error:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise CommitUncertain(str(error)) from error
            return value

    @contextlib.contextmanager
    def _turnstile(self, deadline: float) -> Iterator[None]:
        try:
            gate = self._gate()
        except OSError:  # a full disk: continue without fairness
            yield
            return
        self._queue_up(gate, deadline)
        try:
            yield
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)

    def _queue_up(self, gate: int, deadline: float) -> None:
        """Wait at the turnstile: in the kernel's queue, or by polling for callers with a time limit."""
        if self._patience_s >= PATIENCE_S:
            fcntl.flock(gate, fcntl.LOCK_EX)
            return
        while time.monotonic() < deadline:  # after that without fairness: SQLite's own lock is what keeps us apart
            try:
                return fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)

    def _gate(self) -> int:
        """This thread's handle of the lock file: opened once, as opening it took a tenth of a short write."""
        gate: int | None = getattr(self._local, "gate", None)
        if gate is None:
            gate = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._local.gate = gate
        return gate

    def _connection(self, durable: bool) -> apsw.Connection:
        name = "durable" if durable else "quick"
        connection: apsw.Connection | None = getattr(self._local, name, None)
        if connection is None:
            if os.getpid() != self._pid:
                raise RuntimeError("this Database was made before a fork; a connection must not cross it")
            connection = connect(self.path, durable, busy_ms=min(BUSY_TIMEOUT_MS, int(self._patience_s * 1000)))
            setattr(self._local, name, connection)
        return connection

    def _free_reserve(self) -> bool:
        try:
            self.path.with_suffix(".reserve").unlink()
        except FileNotFoundError:
            return False
        log.error("the disk is full: freed the reserve of %d bytes next to the queue", RESERVE_BYTES)
        return True


def connect(path: Path, durable: bool = True, *, create: bool = False, busy_ms: int = BUSY_TIMEOUT_MS) -> apsw.Connection:
    """A connection with our pragmas, WAL checked, rows as dicts. busy_ms: how long it waits for others, from the beginning."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(busy_ms)
    if create:
        connection.execute("pragma auto_vacuum = incremental")
    for pragma in PRAGMAS:
        connection.execute(pragma)
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise RuntimeError(f"{path}: SQLite chose journal mode {mode}, not wal; DATA_DIR must be on a local disk")
    connection.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
    connection.row_trace = _as_dict
    return connection


def _as_dict(cursor: apsw.Cursor, row: tuple[Any, ...]) -> Row:
    return dict(zip((column[0] for column in cursor.get_description()), row, strict=True))
