"""What a database must provide for the statements of `database`, and the errors that it may raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from jobqueue.database import ERRORS as SQLITE_ERRORS
from jobqueue.database import Row

T = TypeVar("T")


class WrongDatabase(Exception):
    """The database is not an orchestrator's, is from a newer version, or cannot be used. One line for the user."""


class DatabaseUnavailable(Exception):
    """The server is gone or refuses. Nothing was committed."""


#: What `read` and `write` raise while the database fails.
ERRORS: tuple[type[Exception], ...] = (*SQLITE_ERRORS, DatabaseUnavailable)


class Transaction(Protocol):
    """Runs one statement inside a transaction; its rows."""

    def __call__(self, sql: str, /, **values: Any) -> list[Row]: ...


class Database(Protocol):
    """A prepared database, for all threads of a process; made after any fork. Both methods raise ERRORS."""

    def read(self, sql: str, /, **values: Any) -> list[Row]: ...

    def write(self, statements: Callable[[Transaction], T], *, durable: bool = True) -> T:
        """Run `statements` in one transaction; all of them again if others were in the way.

        durable=False: a power cut may lose it. Raises CommitUncertain if the change may be there or not.
        """
        ...
