"""Programs under the real guard.pid1, on a configuration of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

import supervision
from jobqueue.migrations import prepare
from supervision import Program

CHECKOUT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0

_HEAD = """
[supervisord]
logfile=/dev/null
logfile_maxbytes=0
pidfile={run}/supervisord.pid
[unix_http_server]
file={run}/supervisor.sock
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_COMMON = """
stdout_logfile=NONE
stderr_logfile=NONE
stderr_events_enabled=true
autorestart=true
stopasgroup=true
startsecs=1
startretries=1
"""


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for: {what}"
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """guard.pid1 with its programs."""

    first: subprocess.Popen[bytes]
    folder: Path

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    def program(self, name: str) -> Program | None:
        """The program if it runs, seen through supervisord's socket."""
        try:
            found = {program.name: program for program in supervision.programs(self.folder / "run")}
        except supervision.NotRunning:
            return None
        return found[name] if name in found and found[name].pid is not None else None

    def running_pid(self, name: str) -> int:
        """The program's process id, once supervisord trusts it."""
        wait_for(lambda: (p := self.program(name)) is not None and p.state == "RUNNING", f"{name} to be running")
        return self.pid(name)

    def pid(self, name: str, other_than: int | None = None, timeout_s: float = DEADLINE_S) -> int:
        """The program's process id, once it runs, and as another process than one that was known."""
        wait_for(lambda: (p := self.program(name)) is not None and p.pid != other_than, f"{name} to run", timeout_s)
        found = self.program(name)
        assert found is not None
        assert found.pid is not None
        return found.pid

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.first.pid).children(recursive=True)
        return []

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.first.send_signal(number)
        return self.first.wait(DEADLINE_S)


@contextlib.contextmanager
def supervised(
    folder: Path, programs: dict[str, str], *, log_format: str = "text", extra: str = "", guard: bool = False
) -> Iterator[Supervised]:
    """Run `programs` (name: file in tests/fakes/programs). extra: lines for each; guard: with the real listener."""
    run = folder / "run"
    run.mkdir(exist_ok=True)
    if guard:
        prepare(folder / "data" / "jobs.db")
    (folder / "test.conf").write_text(_configuration(folder, programs, extra, guard))
    first = start_first(folder, log_format)
    found = Supervised(first=first, folder=folder)
    try:
        yield found
    finally:
        left = found.descendants()
        first.kill()
        first.wait()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def start_first(folder: Path, log_format: str = "text") -> subprocess.Popen[bytes]:
    arguments = ["-c", "test.conf", "--data", "data", "--run", "run", "--log-format", log_format]
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "guard.pid1", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONSAFEPATH": "1"},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def _configuration(folder: Path, programs: dict[str, str], extra: str, guard: bool) -> str:
    text = _HEAD.format(run=folder / "run")
    for name, file in programs.items():
        fake = CHECKOUT / "tests" / "fakes" / "programs" / file
        text += f'\n[program:{name}]\ncommand="{sys.executable}" "{fake}"\nstdout_events_enabled=true{_COMMON}{extra}\n'
    if guard:
        command = f'"{sys.executable}" -m guard --data "{folder}/data" --run "{folder}/run"'
        text += f"\n[eventlistener:guard]\ncommand={command}\nevents=TICK_5{_COMMON}\n"
    return text
