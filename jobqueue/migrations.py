"""Prepares the database for this version, once, before any program starts: create, migrate, or set a corrupt one aside.

Only `worker up` runs this. A file from a newer version is rejected: a downgrade would lose data.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

import apsw

from jobqueue import clock
from jobqueue.control import rebased
from jobqueue.database import RESERVE_BYTES, check_library, connect

log = logging.getLogger(__name__)

APPLICATION_ID = 0x47505557  # "GPUW"
#: Steps from version n to n + 1; a step is never changed once released.
STEPS = tuple(Path(__file__).with_name(name) for name in ("schema.sql", "listing.sql", "reports.sql"))
VERSION = len(STEPS)
#: How many corrupt files are kept, newest first.
MAX_ASIDE = 3


class WrongDatabase(Exception):
    """The file is not ours, or is from a newer version. The message says what to do."""


def prepare(path: Path) -> Path | None:
    """Create or migrate the database at `path`. Returns where a corrupt one was set aside, otherwise None.

    Raises WrongDatabase for a file of a newer version or of another program.
    """
    check_library()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = None
    if path.exists() and not _is_sound(path):
        aside = _set_aside(path)
        log.error("the queue was corrupt; it was set aside as %s and an empty one created", aside)
    connection = connect(path, create=True)
    try:
        _migrate(connection, path)
        _begin_boot(connection)
    finally:
        connection.close()
    make_reserve(path)
    return aside


def check_version(path: Path) -> None:
    """For a program that starts: raise WrongDatabase unless the file is there and is exactly of this version."""
    if not path.exists():
        raise WrongDatabase(f"{path}: no queue yet; start the worker with: worker up")
    connection = connect(path)
    try:
        version = connection.pragma("user_version")
    finally:
        connection.close()
    if version != VERSION:
        raise WrongDatabase(f"{path}: has version {version}, this program supports {VERSION}; start it with: worker up")


def _is_sound(path: Path) -> bool:
    try:
        connection = apsw.Connection(str(path))
        try:
            return bool(connection.pragma("quick_check") == "ok")
        finally:
            connection.close()
    except (apsw.CorruptError, apsw.NotADBError):
        return False


def _set_aside(path: Path) -> Path:
    folder = path.parent / f"corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder.mkdir()
    for suffix in ("", "-wal", "-shm"):  # the -wal is part of the database
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(folder / part.name)
    for old in sorted(path.parent.glob("corrupt-*"))[:-MAX_ASIDE]:  # a failing disk may damage one at every start
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _migrate(connection: apsw.Connection, path: Path) -> None:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application not in (0, APPLICATION_ID) or (application == 0 and connection.pragma("schema_version")):
        raise WrongDatabase(f"{path}: is another program's database; set DATA_DIR to a separate folder")
    if version > VERSION:
        raise WrongDatabase(f"{path}: was written by a newer worker (version {version}, this one has {VERSION}); update it")
    for number in range(version, VERSION):
        connection.execute("begin immediate")
        connection.execute(STEPS[number].read_text())
        connection.execute(f"pragma user_version = {number + 1}")
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute("commit")


def _begin_boot(connection: apsw.Connection) -> None:
    """Mark the file as ours, and after a reboot reset the values of the boot clock."""
    boot, at = clock.boot_id(), clock.utc()
    known = {row["name"]: row["value"] for row in connection.execute("select name, value from control")}
    connection.execute("begin immediate")
    if known.get("boot") != boot:
        connection.execute("update job set not_before = 0, stage_since = ? where finished_at is null", (clock.now(),))
        connection.execute("update event set not_before = 0 where sent_at is null")
        connection.execute("delete from status")
        connection.execute("delete from control where name = 'card lost'")
        for name in {"paused", "draining"} & known.keys():
            value = json.dumps(rebased(json.loads(known[name])))
            connection.execute("update control set value = ? where name = ?", (value, name))
    for name, value in (("boot", boot), ("instance", known.get("instance") or secrets.token_hex(8))):
        connection.execute("insert or replace into control (name, value, updated_at) values (?, ?, ?)", (name, value, at))
    connection.execute("commit")


def make_reserve(path: Path) -> None:
    """Create the file that is freed when the disk is full, unless it exists or there is no space for it."""
    reserve = path.with_suffix(".reserve")
    if reserve.exists():
        return
    try:
        with reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except OSError as error:
        reserve.unlink(missing_ok=True)
        log.warning("not enough space for the reserve next to the queue: %s", error)
