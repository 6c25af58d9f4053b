"""The orchestrator on SQLite: making the file, and running the statements of `database` on it.

Connections (through apsw, one per thread, opened after fork) are the worker queue's, on a different file. `:now` is the boot
clock, which no time server adjusts, so only one machine can use the file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from jobqueue import clock
from jobqueue.database import Database, Row, check_library, connect
from orchestrator.database import KEY_LIFE_S
from orchestrator.transaction import Transaction, WrongDatabase

APPLICATION_ID = 0x47505552  # "GPUR"
#: Steps from version n to n + 1; a step is never changed once released.
STEPS = tuple(Path(__file__).with_name(name) for name in ("schema.sql", "forgetting.sql"))
VERSION = len(STEPS)

T = TypeVar("T")


class Sqlite:
    """A prepared file; see `transaction.Database`."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    def read(self, sql: str, /, **values: Any) -> list[Row]:
        return self._database.read(_without_row_locks(sql), **_with_clocks(values))

    def write(self, statements: Callable[[Transaction], T], *, durable: bool = True) -> T:
        def run_all(connection: apsw.Connection) -> T:
            return statements(lambda sql, /, **values: list(connection.execute(_without_row_locks(sql), _with_clocks(values))))

        return self._database.write(run_all, durable=durable)


@functools.cache
def _without_row_locks(sql: str) -> str:
    return re.sub(r" for update( skip locked)?", "", sql)


def _with_clocks(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "now": clock.now(), "utc": clock.utc()}


def prepare(path: Path) -> None:
    """Create the file if there is none, and start a new run: silence while we were down does not count.

    Raises WrongDatabase with a line for the user.
    """
    check_library()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = connect(path, create=True)
    except apsw.NotADBError as error:
        raise WrongDatabase(f"{path}: is not a database; move it away to start with a new one") from error
    try:
        _create(connection, path)
        now = {"now": clock.now(), "expires": clock.now() + KEY_LIFE_S}
        connection.execute("begin immediate")
        connection.execute("update job set vouched_at = :now where state in ('claimed', 'running')", now)
        connection.execute("update worker set seen_at = null")
        connection.execute("update claim_key set expires_at = :expires", now)
        connection.execute("update listening set looked_at = :now", now)
        connection.execute("commit")
    except apsw.CorruptError as error:
        raise WrongDatabase(f"{path}: is corrupt; move it away to start with a new one") from error
    finally:
        connection.close()


def _create(connection: apsw.Connection, path: Path) -> None:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    is_new = application == 0 and version == 0 and not connection.pragma("schema_version")
    if not is_new and application != APPLICATION_ID:
        raise WrongDatabase(f"{path}: is another program's database; choose another folder")
    if version > VERSION:
        raise WrongDatabase(f"{path}: has version {version}, this program supports {VERSION}; update the program")
    connection.execute("begin immediate")
    for step in STEPS[version:]:
        connection.execute(step.read_text())
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {VERSION}")
    connection.execute("commit")
