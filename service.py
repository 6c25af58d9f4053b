"""What every long-running program has in common: its settings, log, lock and queue; loops in threads; a clean shutdown.

    service = start("poller")
    sys.exit(run(service, {"claim": …, "report": …}))

SIGTERM stops all loops except those that complete almost finished jobs: these continue until nothing is left, or LINGER_S
have passed. A loop that dies ends the process, and supervisord restarts it. A file lock, which the kernel releases at death,
allows one process per program and data folder; its holder may put back what the previous run held.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import logging
import os
import queue as stdlib_queue
import resource
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import settings as settings_module
from jobqueue import clock, faults
from jobqueue.control import Control
from jobqueue.database import ERRORS, PATIENCE_S, Database
from jobqueue.job import Job
from jobqueue.migrations import WrongDatabase, check_version
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from settings import Settings, SettingsError
from supervision import stopping_file
from telemetry import logs

log = logging.getLogger(__name__)

#: Exit codes: the settings or the folder are wrong (the user must act), and the program is already running.
EXIT_SETTINGS = 2
EXIT_RUNNING = 3

#: How long the lasting loops continue after a signal, in seconds: above inference's own grace period, and below the
#: stopwaitsecs of the programs that have such loops (supervisord.conf). How old the liveness file of a live program may be.
LINGER_S, ALIVE_S = 40.0, 5.0
#: Seconds between attempts to put back what previous runs held.
RECOVER_AGAIN_S = 1.0

Loop = Callable[[threading.Event], None]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A started program. `owner` is its name and run id, as in the rows it works on."""

    program: str
    owner: str
    settings: Settings

    def open_queue(self, patience_s: float = PATIENCE_S) -> tuple[Queue, Control, Outbox]:
        """The queue, for this process; call it after any fork. patience_s: how long a write may wait for other writers."""
        database = Database(self.settings.database, patience_s)
        return Queue(database, self.program), Control(database), Outbox(database)


def start(program: str) -> Service:
    """Start a program. Exits with one line and code 2 if the settings or the data folder are unusable."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold secrets and other people's videos
    faulthandler.enable()
    try:
        settings = settings_module.load()
        check_version(settings.database)
    except (SettingsError, WrongDatabase) as error:
        refuse(str(error))
    logs.set_up(program, settings.LOG_FORMAT, settings.data_dir / "logs", settings_module.secret_values(settings))
    faults.arm(settings.KILL_AT, settings.data_dir)
    if not lock(settings.data_dir, program):
        log.error("another %s is running on %s; exiting", program, settings.data_dir)
        sys.exit(EXIT_RUNNING)
    return Service(program=program, owner=f"{program}/{secrets.token_hex(4)}", settings=settings)


def run(
    service: Service,
    loops: Mapping[str, Loop],
    ring: Callable[[], None],
    lasting: Mapping[str, Loop] | None = None,
    is_finishing: Callable[[], bool] = lambda: False,
) -> int:
    """Run the loops, each in a thread, until SIGTERM or the death of one of them. `ring` wakes waiting loops. After a signal
    the `lasting` ones continue while `is_finishing()`.

    Returns the exit code: 0 after a signal, 1 after the death of a loop.
    """
    # A signal handler must be reentrant: Event.set takes a lock that its own thread may hold, SimpleQueue does not.
    signals: stdlib_queue.SimpleQueue[int] = stdlib_queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: signals.put(received))
    dead: list[str] = []
    stop, over = threading.Event(), threading.Event()
    told = [(name, loop, stop) for name, loop in loops.items()]
    told += [(name, loop, over) for name, loop in (lasting or {}).items()]
    threads = [threading.Thread(target=_run_loop, args=(*each, dead), name=each[0]) for each in told]
    for thread in threads:
        thread.daemon = True
        thread.start()
    alive = liveness_file(service.settings.run_dir, service.program)
    alive.parent.mkdir(mode=0o700, exist_ok=True)
    while not dead:
        alive.touch()
        try:
            signals.get(timeout=1.0)
            break
        except stdlib_queue.Empty:
            continue
    stop.set()
    ring()
    deadline = time.monotonic() + LINGER_S
    while not dead and time.monotonic() < deadline and is_finishing():
        alive.touch()
        time.sleep(0.2)
    over.set()
    ring()
    for thread in threads:
        while thread.is_alive():
            alive.touch()
            thread.join(0.5)
    log.info("ended%s", f" because {dead[0]} died" if dead else "")
    return 1 if dead else 0


def liveness_file(run_dir: Path, program: str) -> Path:
    """Touched every second by a live program; the guard checks its age."""
    return run_dir / f"alive-{program}"


def can_finish(job: Job, run_dir: Path) -> bool:
    """Whether this job can still finish while all programs stop: it is on the GPU or being uploaded, and the program that
    has it is alive. A program that is restarted alone need not wait for that."""
    if not stopping_file(run_dir).exists():
        return False
    program = {"generating": "inference", "generated": "uploader", "uploading": "uploader"}.get(job.state)
    if program is None or (job.state == "generated" and job.not_before > clock.now()):
        return False
    try:
        return time.time() - liveness_file(run_dir, program).stat().st_mtime < ALIVE_S
    except FileNotFoundError:
        return False


def is_finishing(queue: Queue, run_dir: Path) -> bool:
    """Whether any job can finish (see can_finish). A queue that cannot be read is not waited for."""
    try:
        return any(can_finish(job, run_dir) for job in queue.unfinished())
    except ERRORS:
        return False


def recovering(service: Service, queue: Queue) -> Loop:
    """A loop that puts back what previous runs of this program held. Nobody can take those rows before, so it may run late: on
    a full disk the other loops must run first, including the one that frees space."""

    def loop(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                for job in queue.recover(service.program, service.owner, service.settings.JOB_TIMEOUT_SEC):
                    log.warning("job %s was left unfinished by a dead %s; now %s", job.id, service.program, job.state)
                break
            except ERRORS as error:
                log.error("the queue cannot be written, trying again: %s", error)
                stop.wait(RECOVER_AGAIN_S)
        stop.wait()

    return loop


def lock(data_dir: Path, name: str) -> bool:
    """Take the lock `name` of this data folder for the lifetime of this process. False if another process has it."""
    folder = data_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    return True  # the handle stays open until the kernel closes it


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it dies, even by SIGKILL."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def refuse(line: str) -> NoReturn:
    """End the process with one line on standard error and exit code 2: the user must change something."""
    sys.stderr.write(line + "\n")
    sys.exit(EXIT_SETTINGS)


def _run_loop(name: str, loop: Loop, stop: threading.Event, dead: list[str]) -> None:
    try:
        loop(stop)
    except BaseException:  # whatever it was, the process must not continue without this loop
        log.critical("thread %s died; restarting the program", name, exc_info=True)
        dead.append(name)
    else:
        if not stop.is_set():
            log.critical("thread %s returned unexpectedly; restarting the program", name)
            dead.append(name)
