"""Where links may lead, and how what is on its way is ended: at once, whatever the server does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.file_server import FileServer, drip, silence
from tests.fakes.hub import Hub
from tests.patience import until
from weights import transfer
from weights.manifest import File
from weights.pull import Ways, pull
from weights.transfer import is_allowed

ROOT = Path(__file__).resolve().parents[2]
BODY = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def ways(hub: Hub) -> Ways:
    return Ways(mirror=hub.url, pause_s=0.01, max_pause_s=0.05)


@pytest.mark.parametrize(
    ("url", "private", "allowed"),
    [
        ("https://mirror.example/hub", False, True),
        ("http://127.0.0.1:8000", False, True),
        ("http://localhost:8000", False, True),
        ("http://[::1]:8000", False, True),
        ("http://mirror.example", False, False),
        ("http://10.0.0.7/hub", False, False),
        ("http://10.0.0.7/hub", True, True),
        ("ftp://mirror.example", True, False),
        ("file:///etc/passwd", True, False),
    ],
)
def test_only_https_leads_off_this_machine(url: str, private: bool, allowed: bool) -> None:
    assert is_allowed(url, private) is allowed


def test_a_pull_that_is_stopped_keeps_what_came_and_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    file, how = hub.keep(BODY), ways(hub)
    [outcome] = pull(tmp_path, [file], how, lambda path, done, total: how.stop.set() if done >= 2**20 else None)
    assert outcome.state == "stopped"
    there = (tmp_path / "net" / "weights.bin.part").stat().st_size
    assert 0 < there < len(BODY)
    assert pull(tmp_path, [file], ways(hub))[0].state == "fetched"
    assert hub.seen[-1].headers["Range"] == f"bytes={there}-"


def test_a_server_that_gives_byte_by_byte_is_left_when_the_pull_is_stopped(tmp_path: Path) -> None:
    how = Ways(tries=1)
    with FileServer([drip(b"x" * 1000, 0.05)]) as server:
        file = File(path="w.bin", url=server.url("/w.bin"), size_bytes=1000, sha256="0" * 64)
        heard: list[int] = []

        def on_bytes(path: str, done: int, total: int) -> None:
            heard.append(done)
            if done >= 3:
                how.stop.set()

        [outcome] = pull(tmp_path, [file], how, on_bytes)
    assert outcome.state == "stopped"
    assert heard[-1] == (tmp_path / "w.bin.part").stat().st_size < 100


#: A pull of what its argument names. Python's own handler, since a shell that starts tests in the background ignores SIGINT.
PROGRAM = """
import signal
import sys
from pathlib import Path
from weights.manifest import File
from weights.pull import pull
signal.signal(signal.SIGINT, signal.default_int_handler)
pull(Path(sys.argv[1]), [File(path="w.bin", url=sys.argv[2], size_bytes=10, sha256="0" * 64)])
"""


def test_ctrl_c_ends_a_pull_and_pressed_again_ends_it_whatever_it_waits_for(tmp_path: Path) -> None:
    asked = threading.Event()

    def silent(handler: Any) -> None:
        asked.set()
        silence(handler)

    with FileServer([silent]) as server:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), server.url("/w.bin")]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            assert asked.wait(30)
            process.send_signal(signal.SIGINT)
            until(lambda: not hears(process.pid, signal.SIGINT))
            assert process.poll() is None  # it waits for the server
            process.send_signal(signal.SIGINT)
            assert process.wait(transfer.READ_S / 2) == -signal.SIGINT


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (number - 1))
