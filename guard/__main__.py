"""`python -m guard`: supervisord's event listener. Every five seconds: is a program stuck, memory gone, a drain at its end,
something due that an operator asked for?

The protocol is on standard input and output; the log therefore goes to standard error. It ends with its input, so that it
never outlives supervisord.
"""

from __future__ import annotations

import argparse
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

#: After which the next look tries again.
TROUBLE: tuple[type[Exception], ...] = (supervision.NotRunning, *ERRORS)


def main() -> None:
    options = _parse()
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logs.set_up("guard", options.log_format, options.data / "logs", [])
    database = Database(options.data / "jobs.db")
    watch, pressure = stuck.Watch(options.run), memory.Pressure()
    for _ in _events(sys.stdin.buffer, protocol):
        try:
            programs = supervision.programs(options.run)
        except supervision.NotRunning:
            continue  # it is too busy, or frozen: nothing can be judged now
        watch.look(programs)
        pressure.look(programs)
        if (reason := settle(database, options.run)) is not None:
            verdict.leave(options.run, verdict.Verdict(code=0, reason=reason))
            os.kill(os.getppid(), signal.SIGTERM)


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
