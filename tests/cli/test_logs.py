"""The log files of all programs as one stream."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.cli.conftest import CHECKOUT, Run


def line(second: int, program: str, event: str, **bound: str) -> str:
    head = {"at": f"2026-01-01T00:00:{second:02}Z", "program": program, "level": "info"}
    return json.dumps(head | {"event": event} | bound) + "\n"


@pytest.fixture
def written(folder: Path) -> Path:
    logs = folder / "data" / "logs"
    logs.mkdir(parents=True)
    (logs / "poller.log.1").write_text(line(1, "poller", "one"))
    (logs / "poller.log").write_text(line(3, "poller", "three", job="job-1") + '{"at": "half')
    (logs / "uploader.log").write_text(line(2, "uploader", "two"))
    (logs / "api.log").symlink_to(logs / "gone")  # as one is that is replaced between two looks: listed, and not there
    return logs


@pytest.mark.usefixtures("written")
def test_lines_of_all_programs_are_in_the_order_of_time(worker: Run) -> None:
    assert [row.split()[3] for row in worker("logs").stdout.splitlines()] == ["one", "two", "three"]


@pytest.mark.usefixtures("written")
def test_lines_can_be_chosen_by_program_job_and_number(worker: Run) -> None:
    assert [row.split()[3] for row in worker("logs", "uploader").stdout.splitlines()] == ["two"]
    assert worker("logs", "--job", "job-1").stdout.splitlines() == [
        "2026-01-01T00:00:03Z poller     info  three  [job=job-1]",
    ]
    assert [json.loads(row)["event"] for row in worker("logs", "-n", "2", "--json").stdout.splitlines()] == ["two", "three"]


@pytest.mark.usefixtures("written")
def test_a_program_without_a_log_is_4(worker: Run) -> None:
    assert worker("logs", "nobody").returncode == 4


def held(pid: int) -> set[str]:
    """The files that a process has open."""
    found = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(handle))
    return found


def test_following_shows_what_comes_and_survives_a_rotation(folder: Path, written: Path) -> None:
    environ = {**os.environ, "DATA_DIR": str(folder / "data"), "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-m", "cli", "logs", "-f", "-n", "1"], env=environ, stdout=-1, text=True) as process:
        rows: SimpleQueue[str] = SimpleQueue()
        assert process.stdout
        stdout = process.stdout
        threading.Thread(target=lambda: [*map(rows.put, stdout)], daemon=True).start()
        assert "three" in rows.get(timeout=20)
        with (written / "uploader.log").open("a") as log:
            log.write(line(4, "uploader", "four"))
        assert "four" in rows.get(timeout=20)
        (written / "uploader.log").rename(written / "uploader.log.1")
        (written / "uploader.log").write_text(line(5, "uploader", "five"))
        assert "five" in rows.get(timeout=20)
        assert str(written / "uploader.log") in held(process.pid)
        assert str(written / "uploader.log.1") not in held(process.pid)
        process.terminate()
