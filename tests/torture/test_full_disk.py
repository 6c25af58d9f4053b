"""A data folder whose disk fills up under the running worker, and is given room again; slow, run with `-m slow`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import until
from tests.torture.check import gaps, violations
from tests.torture.test_torture import scene
from tests.torture.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZE_MB = 64


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own."""
    folder = tmp_path / "worker"
    (folder / "data").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder / "data")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk of its own: mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder / "data")], check=True)


def fill(file: Path) -> None:
    """Take every block that is left."""
    with file.open("ab") as out:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    os.write(out.fileno(), b"\0" * size)
            except OSError:
                continue


def test_a_disk_that_fills_up_under_the_jobs_costs_time_and_nothing_else(small_disk: Path, tmp_path: Path) -> None:
    with scene(tmp_path, 10, 1) as here:
        worker = Worker(small_disk, here.variables())
        worker.begin()
        for number in range(10):
            here.submit(number, step_s=0.2)
        until(lambda: any(job["state"] == "succeeded" for job in here.jobs(10)), 60)
        ballast = worker.data_dir / "ballast"
        since, beats = time.monotonic(), len(here.proxy.heartbeats)
        while time.monotonic() - since < 40:  # longer than the queue itself waits for room
            fill(ballast)
            time.sleep(0.5)
        heard = len(here.proxy.heartbeats) - beats
        ballast.unlink()
        until(lambda: not here.unfinished(), 90)
        time.sleep(3)  # the last answers reach the worker's own queue
        code = worker.end()
        found = violations(here.jobs(10), here.expected(10), here.store.objects(), worker.data_dir)
        found += gaps(here.proxy.heartbeats, 0)
    log = worker.log.read_text()
    assert not found, "\n".join(found) + "\n" + log[-4000:]
    assert "disk is full" in log
    assert "died" not in log
    assert heard > 10
    assert (worker.restarts, code) == (0, 0)
