"""The bench that an image is put on: containers as a careful operator would run them, and what is found out about them."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.image.tool import Tool

PYTHON = "/opt/venv/bin/python"
#: Under what every container runs here: nothing that the worker needs is missing.
CONFINED = ("--read-only", "--tmpfs=/tmp", "--shm-size=64m", "--network=none", "--security-opt=no-new-privileges")
#: How long a container waits to be found in a state, and how long its orderly end may take, in seconds.
WAIT_S, STOP_S = 90.0, 30.0
LOOK_EVERY_S = 0.2

PROCESSES = """
import json, os, pathlib
found = []
for entry in pathlib.Path("/proc").iterdir():
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        continue
    try:
        status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
        words = (entry / "cmdline").read_bytes().decode().split("\\0")
    except OSError:  # it has ended meanwhile
        continue
    found.append({"pid": int(entry.name), "uid": int(status["Uid"].split()[0]), "words": words})
print(json.dumps(found))
"""
STATUS = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
connection.request("GET", sys.argv[3])
print(connection.getresponse().status)
"""

T = TypeVar("T")


class Bench:
    """One image, and what was found."""

    def __init__(self, tool: Tool, image: str, variables: list[str], video: Path | None = None) -> None:
        self.tool, self.image, self.video, self.failures = tool, image, video, 0
        self.options = (*tool.run, *CONFINED, *(f"--env={variable}" for variable in variables))

    def say(self, holds: bool, text: str, found: object = "") -> None:
        """One line a check."""
        self.failures += not holds
        print(f"{'ok  ' if holds else 'FAIL'}  {text}" + (f": {found}" if found != "" else ""), flush=True)

    def configuration(self) -> dict[str, Any]:
        """What the image says about how it is run, as docker words it; podman has the health check in another place."""
        found = json.loads(self.tool("image", "inspect", self.image).stdout)[0]
        return {"Healthcheck": found.get("HealthCheck") or found.get("Healthcheck"), **found["Config"]}

    def run(self, *options: str, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """A container that ends by itself."""
        return self.tool("run", "--rm", *self.options, *options, self.image, *command)

    def python(self, code: str, *options: str) -> str:
        """What some Python prints in a container of its own, as root."""
        done = self.run(f"--entrypoint={PYTHON}", *options, command=("-I", "-c", code))
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    @contextlib.contextmanager
    def volume(self) -> Iterator[str]:
        name = f"check-{secrets.token_hex(4)}"
        self.tool("volume", "create", name)
        try:
            yield name
        finally:
            self.tool("volume", "rm", name)

    @contextlib.contextmanager
    def container(self, *options: str, command: tuple[str, ...] = ()) -> Iterator[Container]:
        """A container that runs on; it is gone afterwards, and so are the volumes that it alone has."""
        name = f"check-{secrets.token_hex(4)}"
        try:
            done = self.tool("run", "--detach", f"--name={name}", *self.options, *options, self.image, *command)
            if done.returncode:
                raise RuntimeError(done.stderr.strip())
            yield Container(self.tool, name)
        finally:
            self.tool("rm", "--force", "--volumes", name)


class Container:
    """A container, seen from outside."""

    def __init__(self, tool: Tool, name: str) -> None:
        self.tool, self.name = tool, name

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that somebody types in the container, as root."""
        return self.tool("exec", self.name, *command)

    def wait(self) -> int:
        """Its exit code, when it has ended by itself."""
        return int(self.tool("wait", self.name).stdout)

    def logs(self) -> tuple[str, str]:
        """Its standard output and standard error."""
        done = self.tool("logs", self.name)
        return done.stdout, done.stderr

    def processes(self) -> list[dict[str, Any]]:
        """pid, uid and words of everything that runs in it."""
        done = self.execute(PYTHON, "-I", "-c", PROCESSES)
        if done.returncode:
            raise RuntimeError(f"its processes cannot be seen: {done.stderr.strip()}")
        return list(json.loads(done.stdout))

    def pid(self, program: str) -> int | None:
        """The process of `python -m PROGRAM`; it comes before those that it starts itself."""
        found = [process["pid"] for process in self.processes() if process["words"][1:3] == ["-m", program]]
        return min(found, default=None)

    def kill(self, program: str) -> int:
        """kill -9 of a program; the process that it was."""
        pid = self.pid(program)
        done = self.execute(PYTHON, "-I", "-c", f"import os; os.kill({pid}, 9)")
        if pid is None or done.returncode:
            raise RuntimeError(f"{program} could not be killed: {done.stderr.strip() or 'it does not run'}")
        return pid

    def restarts(self) -> int:
        """How often --restart=always has had to do something."""
        return int(self.tool("inspect", "--format={{.RestartCount}}", self.name).stdout)

    def status(self, port: int, path: str, host: str = "127.0.0.1") -> int:
        """The status of an HTTP answer; 0: there is none."""
        return int(self.execute(PYTHON, "-I", "-c", STATUS, host, str(port), path).stdout or 0)

    def job(self, job_id: str) -> str:
        """A job's state; empty while it cannot be asked."""
        return str(json.loads(self.execute("worker", "jobs", job_id, "--json").stdout or "{}").get("state", ""))

    def submit(self, *options: str) -> dict[str, Any]:
        """Hand in the sample job, as `worker submit` does."""
        done = self.execute("worker", "submit", "/app/samples/face.mp4", "/app/samples/speech.wav", "--json", *options)
        if not done.stdout:
            raise RuntimeError(done.stderr.strip())
        return dict(json.loads(done.stdout))

    def stop(self) -> tuple[int, float]:
        """SIGTERM to the first process: its exit code and the seconds it took."""
        began_s = time.monotonic()
        self.tool("stop", f"--time={STOP_S:.0f}", self.name)
        return int(self.tool("inspect", "--format={{.State.ExitCode}}", self.name).stdout), time.monotonic() - began_s

    def until(self, what: Callable[[], T], expected: str) -> T:
        """Wait for something to be true of it. Raises RuntimeError with the end of its log."""
        deadline = time.monotonic() + WAIT_S
        while not (found := what()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {WAIT_S:.0f} s: {expected}. Its log ends: {''.join(self.logs())[-1500:]}")
            time.sleep(LOOK_EVERY_S)
        return found

    def until_ready(self) -> None:
        self.until(lambda: self.status(8000, "/ready") == 200, "GET /ready answers 200")
