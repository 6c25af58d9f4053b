"""Queries supervisord through its socket in the run folder; the only module that talks to it."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: supervisord answers in a millisecond, unless it is stopped or its output is blocked.
TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program as supervisord sees it. pid: None when it does not run."""

    name: str
    #: STARTING RUNNING BACKOFF STOPPING STOPPED EXITED FATAL UNKNOWN
    state: str
    pid: int | None
    up_s: float
    #: Why it does not run, as supervisord says; its exit code is useless, it may be 0 for a program that never started.
    why: str = ""


class NotRunning(Exception):
    """No supervisord answers at this socket."""


def socket_file(run_dir: Path) -> Path:
    return run_dir / "supervisor.sock"


def programs(run_dir: Path) -> list[Program]:
    """All programs that this worker has started: not the demo's where there is no demo. Raises NotRunning."""
    answer = _asked(run_dir, "getAllProcessInfo")
    return [
        Program(
            name=entry["name"],
            state=entry["statename"],
            pid=entry["pid"] or None,
            up_s=max(0.0, entry["now"] - entry["start"]) if entry["pid"] else 0.0,
            why="" if entry["pid"] else entry["spawnerr"] or entry["description"],
        )
        for entry in answer
        if entry["start"] or entry["spawnerr"]
    ]


def stopping_file(run_dir: Path) -> Path:
    """Exists from the moment supervisord begins to stop all programs."""
    return run_dir / "stopping"


def restart(run_dir: Path, name: str) -> None:
    """Stop a program cleanly, so that supervisord restarts it; start it if it is not running. Raises NotRunning.

    Uses a signal, not stop and start: the caller could die between the two, and the program would stay stopped.
    """
    for entry in _asked(run_dir, "getAllProcessInfo"):
        if entry["name"] == name:
            full = f"{entry['group']}:{name}"
            _asked(run_dir, "signalProcess", full, "TERM") if entry["pid"] else _asked(run_dir, "startProcess", full, False)
            return
    raise NotRunning(f"there is no program called {name}")


def _asked(run_dir: Path, method: str, *values: Any) -> Any:
    try:
        with xmlrpc.client.ServerProxy("http://supervisor", transport=_Transport(socket_file(run_dir))) as server:
            return getattr(server.supervisor, method)(*values)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise NotRunning(str(error)) from error


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
