"""`python -m guard`: supervisord's event listener. Every five seconds: is a program stuck, memory gone, a drain at its end,
something due that an operator asked for?

The protocol is on standard input and output; the log therefore goes to standard error. It ends with its input, so that it
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

#: Looks between two times that the run folder's files are made young again: about an hour.
FRESHEN_EVERY = 720
#: After which the next look tries again.
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
            continue  # it is too busy, or frozen: nothing can be judged now
        watch.look(programs)
        pressure.look(programs)
        if (reason := settle(database, options.run)) is not None:
            verdict.leave(options.run, verdict.Verdict(code=0, reason=reason))
            os.kill(os.getppid(), signal.SIGTERM)


def freshen(run_dir: Path) -> None:
    """Make the files in the run folder young. It is under /tmp, where many machines remove whatever is ten days old; without
    supervisord's socket nobody could ask it anything any more, and no drain would end."""
    with contextlib.suppress(OSError):  # it has gone, or the disk can only be read
        for file in run_dir.iterdir():
            if not file.name.startswith("alive-"):  # programs do that themselves, and `stuck` looks whether they do
                os.utime(file)


def settle(database: Database, run_dir: Path) -> str | None:
    """Do what operators asked for and has come due; returns why the worker is to end now, None if it is not. If the queue or
    supervisord cannot be asked now, that is for the next look."""
    try:
        operator = Operator(actor="guard", queue=Queue(database), control=Control(database), outbox=Outbox(database))
        if (reason := drain.end(operator)) is None:
            operator.settle(run_dir)
    except TROUBLE as error:
        log.warning("what has come due was not done: %s", error)
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
