"""What `worker doctor --fix` puts right: only what is safe at any moment, and could be made or done anew.

Never touches a job, its files, an output, weights or a setting. Locks and sockets are left alone: the kernel frees a lock with
its holder, and a start replaces a socket that nobody serves.
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

#: Files that a program makes for a moment, and leaves behind if it is killed in it: patterns in DATA_DIR, and from which age on
#: (s) they are nobody's.
PASSING = (".doctor-*", ".writable-*", ".admin_token-*")
PASSING_S = 3600.0
#: A write-ahead log of this size is folded into the queue's file; it usually is by itself at a quarter of it.
LOG_BYTES = 16 * 2**20
#: The disk must have so many times the reserve free before the reserve is taken from it.
RESERVES = 50
#: States of a program that stay until somebody starts it.
STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")

#: What to do about each of these.
COMMAND = "worker doctor --fix"

#: What an act may run into.
TROUBLE: tuple[type[Exception], ...] = (*ERRORS, OSError, supervision.NotRunning, migrations.WrongDatabase)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """said: what is wrong. does: what would be done. act: does it, and says what came of it."""

    name: str
    said: str
    does: str
    act: Callable[[], str]
    level: Level = "ok"


def check(now: Situation) -> list[Finding]:
    """What `--fix` would do now, a finding each. Changes nothing."""
    try:
        found = repairs(now.settings)
    except TROUBLE:
        return []  # the queue's own finding says it
    return [Finding(name=one.name, level=one.level, said=one.said, do=f"{COMMAND} {one.does}") for one in found]


def repairs(settings: Settings) -> list[Repair]:
    """What can be put right now. Nothing where no worker has run yet. Raises TROUBLE if the queue cannot be read."""
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
    """Do it; what came of it, as the API has it. With a row in the audit trail, also if it failed."""
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
        return "only its owner may read it now"

    said = f"{file} may be read by other users (mode {file.stat().st_mode & 0o777:o})"
    return [Repair(name="token", level="warn", said=said, does="makes it its owner's alone (0600)", act=act)]


def _passing(data_dir: Path) -> list[Repair]:
    old = [file for pattern in PASSING for file in data_dir.glob(pattern) if time.time() - file.stat().st_mtime > PASSING_S]
    if not old:
        return []

    def act() -> str:
        for file in old:
            file.unlink(missing_ok=True)
        return f"removed {', '.join(file.name for file in old)}"

    size = sum(file.stat().st_size for file in old)
    said = f"{len(old)} files that killed programs left in {data_dir}, {size / 1e6:.1f} MB"
    return [Repair(name="left files", said=said, does="removes them", act=act)]


def _log_ins(control: Control) -> list[Repair]:
    over = control.sessions_over(time.time())
    if not over:
        return []

    def act() -> str:
        return f"{control.forget_sessions(time.time())} ended"

    return [Repair(name="log-ins", said=f"{over} log-ins to the page are over but still kept", does="forgets them", act=act)]


def _log(path: Path) -> list[Repair]:
    size = soundness.log_bytes(path)
    if size <= LOG_BYTES:
        return []

    def act() -> str:
        busy = Database(path).read("pragma wal_checkpoint(truncate)")[0]["busy"]
        left = soundness.log_bytes(path)
        return f"{left / 1e6:.1f} MB are left" + ("; a program reads for long: restart the worker" if busy else "")

    said = f"the queue's log has {size / 1e6:.1f} MB"
    return [Repair(name="queue's log", said=said, does="folds it into the queue's file", act=act)]


def _reserve(path: Path) -> list[Repair]:
    free = shutil.disk_usage(path.parent).free
    if path.with_suffix(".reserve").exists() or free < RESERVES * RESERVE_BYTES:
        return []

    def act() -> str:
        migrations.make_reserve(path)
        return "it is there again" if path.with_suffix(".reserve").exists() else "failed: there is no room"

    said = "the reserve for a full disk has been used up, and there is room again"
    return [Repair(name="reserve", said=said, does="makes it anew (4 MB)", act=act)]


def _programs(run_dir: Path) -> list[Repair]:
    try:
        stopped = [program.name for program in supervision.programs(run_dir) if program.state in STOPPED]
    except supervision.NotRunning:
        return []

    def starting(name: str) -> Callable[[], str]:
        def act() -> str:
            supervision.restart(run_dir, name)
            return "it starts"

        return act

    said = "does not run, and nobody will start it"
    return [Repair(name=name, level="warn", said=said, does="starts it", act=starting(name)) for name in stopped]
