"""Checks before any program starts. Each failure is one line that names the variable and the allowed values."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import answers
from cli.answer import EXIT_USAGE, Failure
from doctor.start import MIN_SHM_BYTES, SHM, fault_of_ports
from jobqueue import migrations
from jobqueue.control import Control
from jobqueue.database import Database
from settings import Settings

#: A socket's path may have 107 bytes; supervisord adds a dot and its process id while it makes it.
MAX_RUN_DIR = 75


def make_ready(settings: Settings) -> list[str]:
    """Check everything, and prepare the folders and the queue. Returns warnings. Raises Failure with one line."""
    _check_folder(settings)
    _make_run_dir(settings.run_dir)
    with _only_worker(settings.data_dir):
        if fault := fault_of_ports(settings):
            raise _refusal(fault)
        _check_engine(settings.ENGINE)
        try:
            migrations.prepare(settings.database)
        except migrations.WrongDatabase as error:
            raise _refusal(f"DATA_DIR={settings.DATA_DIR}: {error}") from None
        control = Control(Database(settings.database))
        control.take_down("draining")  # the drain that ended the previous run
        for program in control.restarts():  # all of them start now
            control.end_restart(program)
        answers.started_file(settings).write_text(json.dumps(answers.essentials(settings)))
    return _warnings(settings)


def _refusal(line: str) -> Failure:
    return Failure(line, EXIT_USAGE)


def _check_folder(settings: Settings) -> None:
    probe = settings.data_dir / f".writable-{os.getpid()}"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _refusal(
            f"DATA_DIR={settings.DATA_DIR}: cannot be written ({error.strerror}); must be a folder on a local disk that "
            f"user {os.getuid()} may write to"
        ) from None


def _make_run_dir(run_dir: Path) -> None:
    if len(str(run_dir)) > MAX_RUN_DIR:
        raise _refusal(f"TMPDIR={run_dir.parent}: is too long for sockets; must be at most {MAX_RUN_DIR - 20} characters")
    try:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        found = run_dir.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, f"{run_dir.name} in it belongs to another user")
        run_dir.chmod(0o700)
    except OSError as error:
        raise _refusal(f"TMPDIR={run_dir.parent}: {error.strerror}; user {os.getuid()} must be able to write there") from None
    for left in run_dir.glob("alive-*"):
        left.unlink()


@contextlib.contextmanager
def _only_worker(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a running worker during the checks; `guard.pid1` then takes it for good."""
    (data_dir / "locks").mkdir(exist_ok=True)
    with (data_dir / "locks" / "worker").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            line = f"DATA_DIR={data_dir}: another worker is using this folder; stop it, or choose another folder"
            raise _refusal(line) from None
        yield


def _check_engine(engine: str) -> None:
    """A custom engine must be importable; what our own engines lack (weights), inference reports itself."""
    if "." not in engine:
        return
    try:
        found = importlib.util.find_spec(engine)
    except ImportError:
        found = None
    if found is None:
        raise _refusal(f"ENGINE={engine}: no such module; must be a module on PYTHONPATH, or musetalk, fastwan, preview")


def _warnings(settings: Settings) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        shm = shutil.disk_usage(SHM).total
        if shm < MIN_SHM_BYTES:
            found.append(f"{SHM} has only {shm >> 20} MB; engines that share memory may need --shm-size=1g")
    if settings.USE_OPTIMIZED_INFERENCE is not None:
        found.append("USE_OPTIMIZED_INFERENCE is ignored; inference is always optimized")
    return found
