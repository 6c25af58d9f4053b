"""The fixes of `worker doctor --fix`: only what is safe at any time, and can be recreated or redone.

Never touches a job, its files, an output, weights or a setting. Locks and sockets are left alone: the kernel releases a lock
when its holder dies, and a starting program replaces a stale socket.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervision
from doctor.finding import Finding, Level, Situation
from jobqueue import migrations, soundness
from jobqueue.control import Control
from jobqueue.database import ERRORS, RESERVE_BYTES, Database
from settings import Settings

#: Temporary files that a killed program leaves behind: patterns in DATA_DIR, and the age (s) from which nobody uses them.
PASSING = (".doctor-*", ".writable-*", ".admin_token-*")
PASSING_S = 3600.0
#: A write-ahead log of this size is checkpointed; that usually happens automatically at a quarter of it.
LOG_BYTES = 16 * 2**20
#: The disk must have this many times the reserve free before the reserve is recreated.
RESERVES = 50
#: States that last until someone starts the program.
STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")

#: The remedy for each of these.
COMMAND = "worker doctor --fix"

#: The errors that a fix may raise.
TROUBLE: tuple[type[Exception], ...] = (*ERRORS, OSError, supervision.NotRunning, migrations.WrongDatabase)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """said: what is wrong. does: the fix. act: applies it, and returns the result as text."""

    name: str
    said: str
    does: str
    act: Callable[[], str]
    level: Level = "ok"


def check(now: Situation) -> list[Finding]:
    """What `--fix` would do now, one finding each. Changes nothing."""
    try:
        found = repairs(now.settings)
    except TROUBLE:
        return []  # the queue's own finding reports it
    return [Finding(name=one.name, level=one.level, said=one.said, do=f"{COMMAND} {one.does}") for one in found]


def repairs(settings: Settings) -> list[Repair]:
    """The fixes that are due. None where no worker has run yet. Raises TROUBLE if the queue cannot be read."""
    if not settings.database.exists():
        return []
    migrations.check_version(settings.database)
    control = Control(Database(settings.database))
    finders: Iterable[list[Repair]] = (
        _token(settings.data_dir),
        _passing(settings.data_dir),
        _log_ins(control),
        _log(settings.database),
        _reserve(settings.database),
        _programs(settings.run_dir),
    )
    return [repair for found in finders for repair in found]


def carry_out(repair: Repair, control: Control, actor: str) -> dict[str, Any]:
    """Apply a fix; returns the result for the API. Adds a row to the audit trail, also on failure."""
    try:
        ok, result = True, repair.act()
    except TROUBLE as error:
        ok, result = False, f"failed: {error}"
    control.note(actor, "doctor --fix", repair.name, repair.said, result)
    return {"name": repair.name, "said": repair.said, "does": repair.does, "ok": ok, "result": result}


def _token(data_dir: Path) -> list[Repair]:
    file = data_dir / "admin_token"
    if not file.exists() or not file.stat().st_mode & 0o077:
        return []

    def act() -> str:
        file.chmod(0o600)
        return "now readable by its owner only"

    said = f"{file} is readable by other users (mode {file.stat().st_mode & 0o777:o})"
    return [Repair(name="token", level="warn", said=said, does="restricts it to its owner (0600)", act=act)]


def _passing(data_dir: Path) -> list[Repair]:
    old = [file for pattern in PASSING for file in data_dir.glob(pattern) if time.time() - file.stat().st_mtime > PASSING_S]
    if not old:
        return []

    def act() -> str:
        for file in old:
            file.unlink(missing_ok=True)
        return f"deleted {', '.join(file.name for file in old)}"

    size = sum(file.stat().st_size for file in old)
    said = f"{len(old)} files left by killed programs in {data_dir}, {size / 1e6:.1f} MB"
    return [Repair(name="left files", said=said, does="deletes them", act=act)]


def _log_ins(control: Control) -> list[Repair]:
    over = control.sessions_over(time.time())
    if not over:
        return []

    def act() -> str:
        return f"deleted {control.forget_sessions(time.time())}"

    return [Repair(name="log-ins", said=f"{over} expired sessions of the page are still stored", does="deletes them", act=act)]


def _log(path: Path) -> list[Repair]:
    size = soundness.log_bytes(path)
    if size <= LOG_BYTES:
        return []

    def act() -> str:
        busy = Database(path).read("pragma wal_checkpoint(truncate)")[0]["busy"]
        left = soundness.log_bytes(path)
        return f"{left / 1e6:.1f} MB left" + ("; a long-running reader blocks it: restart the worker" if busy else "")

    said = f"the queue's log has {size / 1e6:.1f} MB"
    return [Repair(name="queue's log", said=said, does="checkpoints it into the queue's file", act=act)]


def _reserve(path: Path) -> list[Repair]:
    free = shutil.disk_usage(path.parent).free
    if path.with_suffix(".reserve").exists() or free < RESERVES * RESERVE_BYTES:
        return []

    def act() -> str:
        migrations.make_reserve(path)
        return "recreated" if path.with_suffix(".reserve").exists() else "failed: not enough space"

    said = "the reserve for a full disk has been used, and there is space again"
    return [Repair(name="reserve", said=said, does="recreates it (4 MB)", act=act)]


def _programs(run_dir: Path) -> list[Repair]:
    try:
        stopped = [program.name for program in supervision.programs(run_dir) if program.state in STOPPED]
    except supervision.NotRunning:
        return []

    def starting(name: str) -> Callable[[], str]:
        def act() -> str:
            supervision.restart(run_dir, name)
            return "starting"

        return act

    said = "is stopped, and will not start by itself"
    return [Repair(name=name, level="warn", said=said, does="starts it", act=starting(name)) for name in stopped]
