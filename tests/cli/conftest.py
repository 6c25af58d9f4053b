"""The command line as a process, on a data folder of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.migrations import prepare
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from tests.patience import free_port

CHECKOUT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="w-") as path:
        yield Path(path)


@pytest.fixture
def worker(folder: Path) -> Run:
    """Run `worker ARGUMENTS` with these variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        base = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(CHECKOUT)}
        ports = {"HTTP_PORT": str(free_port()), "ADMIN_PORT": str(free_port())}
        environ = base | ports | {"PYTHONSAFEPATH": "1", "DATA_DIR": str(folder / "data"), "COLUMNS": "200"} | variables
        command = [sys.executable, "-m", "cli", *arguments]
        return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def operator(folder: Path) -> Operator:
    """The queue behind the command line, to arrange and to check."""
    prepare(folder / "data" / "jobs.db")
    database = Database(folder / "data" / "jobs.db")
    return Operator(actor="test", queue=Queue(database), control=Control(database), outbox=Outbox(database))
