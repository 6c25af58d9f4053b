"""Kills and stops the worker's programs at seeded random moments, starts second copies, and pulls the plug on all at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import supervision
from tests.torture.worker import Worker

PROGRAMS = ("poller", "inference", "uploader", "api", "guard")
MEAN_PAUSE_S = 0.35
#: How often each deed is done, in parts of a hundred.
DEEDS = {"kill": 70, "stop": 20, "twin": 8, "plug": 2}
MAX_STOP_S = 1.0
#: How long a second copy may live; one that is not wanted ends at once, and importing its libraries takes it seconds.
TWIN_S = 10
#: Programs that are started a second time.
TWINS = ("poller", "inference", "uploader")


class Nemesis:
    """A thread that does harm until `end`; `deeds` counts what it did."""

    def __init__(self, worker: Worker, seed: int, shares: dict[str, int], twins: tuple[str, ...] = TWINS) -> None:
        self._worker, self._random, self._over = worker, random.Random(seed), threading.Event()
        self._shares, self._twins = shares, twins
        self.deeds: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.wait(self._random.expovariate(1 / MEAN_PAUSE_S)):
            deed = self._random.choices(list(self._shares), list(self._shares.values()))[0]
            program = self._random.choice(PROGRAMS)
            if deed == "plug":
                self._worker.pull_the_plug()
            elif deed == "twin":
                self._twin(self._random.choice(self._twins))
            elif (pid := self._pid(program)) is None or not self._harm(pid, deed):
                continue
            self.deeds[deed] = self.deeds.get(deed, 0) + 1

    def _pid(self, program: str) -> int | None:
        try:
            found = [entry.pid for entry in supervision.programs(self._worker.run_dir) if entry.name == program]
        except supervision.NotRunning:
            return None
        return found[0] if found else None

    def _harm(self, pid: int, deed: str) -> bool:
        try:
            if deed == "kill":
                os.kill(pid, signal.SIGKILL)
                return True
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0, MAX_STOP_S))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return False
        return True

    def _twin(self, program: str) -> None:
        """A second copy, as an operator might start it by hand; it must find itself not wanted."""
        command = [sys.executable, "-m", program]
        twin = subprocess.Popen(command, cwd=self._worker.tree, env=self._worker.environment, stdout=subprocess.DEVNULL)
        try:
            twin.wait(TWIN_S)
        except subprocess.TimeoutExpired:
            twin.kill()
            twin.wait()


def events(folder: Path) -> list[tuple[float, int, str, str]]:
    """What the engine noted: when, which process, which job's folder, begin or end."""
    if not (folder / "ledger").exists():
        return []
    lines = [line.split() for line in (folder / "ledger").read_text().splitlines()]
    return [(float(line[0]), int(line[1]), line[2], line[3]) for line in lines if len(line) == 4]
