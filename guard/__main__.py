"""`python -m guard`: supervisord's event listener. Every five seconds it checks for stuck programs, exhausted memory,
completed drains, and due requests of operators.

The event protocol uses standard input and output, so the log goes to standard error. It exits at the end of its input, so it
never outlives supervisord.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import supervision
from guard import drain, memory, stuck, verdict
from jobqueue.control import Control
from jobqueue.database import ERRORS, Database
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from telemetry import logs

log = logging.getLogger(__name__)

#: Checks between refreshes of the time stamps in the run folder: about an hour.
FRESHEN_EVERY = 720
#: Errors after which the next check tries again.
TROUBLE: tuple[type[Exception], ...] = (supervision.NotRunning, *ERRORS)


def main() -> None:
    options = _parse()
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logs.set_up("guard", options.log_format, options.data / "logs", [])
    database = Database(options.data / "jobs.db")
    watch, pressure = stuck.Watch(options.run), memory.Pressure()
    for number, _ in enumerate(_events(sys.stdin.buffer, protocol)):
        if number % FRESHEN_EVERY == 0:
            freshen(options.run)
        try:
            programs = supervision.programs(options.run)
        except supervision.NotRunning:
            continue  # it is too busy, or frozen: no conclusion is possible now
        watch.look(programs)
        pressure.look(programs)
        if (reason := settle(database, options.run)) is not None:
            verdict.leave(options.run, verdict.Verdict(code=0, reason=reason))
            os.kill(os.getppid(), signal.SIGTERM)


def freshen(run_dir: Path) -> None:
    """Refresh the time stamps of the files in the run folder. It is under /tmp, where many machines delete files older than
    ten days; without its socket supervisord would be unreachable, and no drain would end."""
    with contextlib.suppress(OSError):  # it is gone, or the disk is read-only
        for file in run_dir.iterdir():
            if not file.name.startswith("alive-"):  # programs touch these themselves, and `stuck` checks that
                os.utime(file)


def settle(database: Database, run_dir: Path) -> str | None:
    """Do what operators requested and is due; returns why the worker must exit now, or None. If the queue or supervisord
    does not answer, the next check does it."""
    try:
        operator = Operator(actor="guard", queue=Queue(database), control=Control(database), outbox=Outbox(database))
        if (reason := drain.end(operator)) is None:
            operator.settle(run_dir)
    except TROUBLE as error:
        log.warning("due requests could not be processed: %s", error)
        return None
    return reason


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m guard", description="supervisord's event listener.")
    parser.add_argument("--data", type=Path, required=True, help="DATA_DIR")
    parser.add_argument("--run", type=Path, required=True, help="the folder of sockets and liveness files")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    return parser.parse_args()


def _events(source: BinaryIO, answers: BinaryIO) -> Iterator[str]:
    """The names of supervisord's events; each is acknowledged once the caller asks for the next."""
    while True:
        answers.write(b"READY\n")
        header = dict(pair.split(":", 1) for pair in source.readline().decode().split())
        if not header:
            return
        source.read(int(header["len"]))
        yield header["eventname"]
        answers.write(b"RESULT 2\nOK")


if __name__ == "__main__":
    main()
