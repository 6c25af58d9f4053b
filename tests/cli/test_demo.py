"""The demo: everything starts, the sample job goes all the way through, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import CHECKOUT, Run

#: An engine that is quick.
QUICK = {"ENGINE": "tests.fakes.engines.copies"}


def processes_on(folder: Path) -> list[psutil.Process]:
    """Every process that was started for this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            data = process.environ().get("DATA_DIR", "")
        except (psutil.Error, OSError):
            continue
        if data.startswith(str(folder)) and process.pid != os.getpid():
            found.append(process)
    return found


def test_once_makes_a_video_and_leaves_no_process(worker: Run, folder: Path) -> None:
    done = worker("demo", "--once", "--data", str(folder / "demo"), "--json", **QUICK)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["video"]).stat().st_size > 1000
    assert result["admin_url"].startswith("http://127.0.0.1:")
    assert processes_on(folder) == []


@pytest.mark.slow
def test_the_steps_are_shown(worker: Run, folder: Path) -> None:
    done = worker("demo", "--once", "--data", str(folder / "demo"), **QUICK)
    assert "100%  completed" in done.stderr
    assert f"video: {folder}/demo/outputs/" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_job_that_fails_ends_the_demo_with_the_reason(worker: Run, folder: Path) -> None:
    done = worker("demo", "--once", "--data", str(folder / "demo"), ENGINE="tests.fakes.engines.writes_garbage")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("the sample job failed: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_until_it_is_stopped(folder: Path, number: int) -> None:
    def as_in_the_background() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a shell without job control does for `command &`

    environ = {**os.environ, **QUICK, "TMPDIR": str(folder), "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cli", "demo", "--data", str(folder / "demo")]
    with subprocess.Popen(
        command,
        env=environ,
        cwd=folder,
        stderr=-1,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=as_in_the_background,
    ) as process:
        assert process.stderr
        assert any("running; stop with Ctrl-C" in line for line in process.stderr)
        assert processes_on(folder)
        process.send_signal(number)
        assert process.wait(60) == 0
    assert processes_on(folder) == []
