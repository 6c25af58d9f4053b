"""`python -m guard.pid1`: the first process. Runs supervisord, leaves no process behind, and says why it exited.

Its exit code is 0 after SIGTERM, SIGINT or a drain, 70 if a program could not be kept running; the last line says why.
It stays small: `worker up` reads the settings and passes what is needed as arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

from guard import verdict
from guard.output import Output
from guard.outside import Outside
from guard.supervise import supervise
from telemetry import logs

log = logging.getLogger(__name__)

EXIT_REFUSED = 2
#: How long to wait for killed processes to exit; one that hangs in the kernel must not block the exit.
SWEEP_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # for all children: a core file holds secrets, and nobody would delete it
    lock = _lock(options.data / "locks" / "worker")
    if lock is None:
        sys.stderr.write(f"DATA_DIR={options.data}: another worker is using this folder; stop it or choose another folder\n")
        return EXIT_REFUSED
    sys.stdout = outside = Outside(1)
    logs.set_up("supervisor", options.log_format, options.data / "logs", [])
    verdict.forget(options.run)
    _adopt_orphans()
    supervise(options.configuration, options.run, Output(options.log_format, outside))
    _sweep()
    final = verdict.found(options.run) or verdict.Verdict(code=0, reason="stopped")
    log.log(logging.ERROR if final.code else logging.INFO, "the worker exits: %s", final.reason)
    return final.code


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m guard.pid1", description="Run the programs until SIGTERM.")
    parser.add_argument("-c", dest="configuration", type=Path, required=True, help="supervisord's configuration")
    parser.add_argument("--data", type=Path, required=True, help="DATA_DIR")
    parser.add_argument("--run", type=Path, required=True, help="the folder of sockets and liveness files")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    return parser.parse_args(arguments)


def _lock(file: Path) -> int | None:
    """Hold this file's lock for the lifetime of this process. None if another process holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, as process 1 is anyway, so that none is missed."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _sweep() -> None:
    """Kill every remaining descendant; when a parent dies, its children become ours."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    deadline = time.monotonic() + SWEEP_S
    while (children := _children()) and time.monotonic() < deadline:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _children() -> list[int]:
    """The processes whose parent is this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):  # it is gone
                # "pid (name with any character) state parent …"
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid():
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
