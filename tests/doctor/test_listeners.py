"""What other machines can reach: ours without need is a warning, other people's is a note, the page is judged apart."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import settings
from answers import started_file
from doctor import listeners
from doctor.finding import Situation
from supervision import Program
from tests.patience import free_port

#: A program, and its child that listens where it is told and says so.
CHILD = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listens", flush=True)
sys.stdin.read()
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@contextlib.contextmanager
def listening(address: str, port: int) -> Iterator[int]:
    """A program of which a child listens there; its process id."""
    command = [sys.executable, "-c", PARENT, CHILD, address, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "listens\n"
        yield process.pid
        assert process.stdin
        process.stdin.close()


def situation(data_dir: Path, pid: int | None, **variables: str) -> Situation:
    """A worker whose inference is that process."""
    environ = {"DATA_DIR": str(data_dir), "ENGINE": "preview", "HTTP_PORT": str(free_port()), "ADMIN_PORT": str(free_port())}
    programs = None if pid is None else [Program(name="inference", state="RUNNING", pid=pid, up_s=60.0)]
    return Situation(settings=settings.load(environ | variables), cards=[], programs=programs)


def test_a_port_of_ours_that_is_open_without_need_is_warned_about_by_name(tmp_path: Path) -> None:
    port = free_port()
    with listening("0.0.0.0", port) as pid:
        warned, summary = listeners.listeners(situation(tmp_path, pid))
        assert (warned.level, warned.said) == ("warn", f"inference listens on 0.0.0.0:{port}, open to other machines")
        assert "listen on 127.0.0.1" in warned.do
        assert (summary.level, f":{port}" in summary.said, f":{port}" in str(summary.lines)) == ("ok", False, False)
        (meant,) = listeners.listeners(situation(tmp_path, pid, HTTP_PORT=str(port)))
        assert f"open to other machines: 0.0.0.0:{port}" in meant.said
        (others,) = listeners.listeners(situation(tmp_path, None))
        assert (
            any(line.startswith(f"0.0.0.0:{port} python") for line in others.lines) or len(others.lines) > listeners.MAX_LINES
        )
        assert others.level == "ok"


def test_what_listens_to_this_machine_only_is_nobodys_business(tmp_path: Path) -> None:
    port = free_port()
    with listening("127.0.0.1", port) as pid:
        (summary,) = listeners.listeners(situation(tmp_path, pid))
    assert str(port) not in summary.said + str(summary.lines)


def test_the_worker_that_runs_says_its_ports_also_to_a_shell_with_others(tmp_path: Path) -> None:
    port = free_port()
    now = settings.load({"DATA_DIR": str(tmp_path), "ENGINE": "preview"})
    now.run_dir.mkdir()
    try:
        started_file(now).write_text(json.dumps({"http_port": port, "page": f"http://127.0.0.1:{port + 1}"}))
        with listening("0.0.0.0", port) as pid:
            (summary,) = listeners.listeners(situation(tmp_path, pid))
        assert f"open to other machines: 0.0.0.0:{port}" in summary.said
    finally:
        started_file(now).unlink()
        now.run_dir.rmdir()


OPEN = {"ADMIN_HOST": "0.0.0.0"}
GOOD = "correct horse battery staple"


@pytest.mark.parametrize(
    ("variables", "level", "said"),
    [
        ({}, "ok", "reachable from this machine only; from another: ssh -L"),
        ({"ADMIN_ENABLED": "0"}, "ok", "the admin page is off"),
        ({"ADMIN_PASSWORD": "changeme-changeme"}, "ok", "reachable from this machine only"),
        (OPEN, "ok", "its password is strong; no TLS"),
        (OPEN | {"ADMIN_PASSWORD": GOOD}, "ok", "its password is strong; no TLS"),
        (OPEN | {"ADMIN_PASSWORD": GOOD, "ADMIN_TRUSTED_PROXY": "1"}, "ok", "its password is strong"),
        (OPEN | {"ADMIN_PASSWORD": "changeme-changeme"}, "warn", "ADMIN_PASSWORD can be guessed"),
        (OPEN | {"ADMIN_PASSWORD": "aaaaaaaaaaaaaaaa"}, "warn", "ADMIN_PASSWORD can be guessed"),
        (OPEN | {"ADMIN_PASSWORD": GOOD, "ADMIN_VIEW_PASSWORD": "admin-password-2026"}, "warn", "ADMIN_VIEW_PASSWORD can be"),
    ],
)
def test_the_pages_password_is_judged_by_where_the_page_can_be_reached(
    tmp_path: Path, variables: dict[str, str], level: str, said: str
) -> None:
    (found,) = listeners.page(situation(tmp_path, None, **variables))
    assert (found.name, found.level) == ("page", level)
    assert said in found.said
    assert bool(found.do) is (level == "warn")


def test_where_the_page_really_listens_counts_more_than_what_this_shell_says(tmp_path: Path) -> None:
    port = free_port()
    with listening("0.0.0.0", port) as pid:
        (found,) = listeners.page(situation(tmp_path, pid, ADMIN_PORT=str(port), ADMIN_PASSWORD="battery staple"))
    said = f"port {port} is reachable from other machines, and ADMIN_PASSWORD can be guessed"
    assert (found.level, found.said) == ("warn", said)


@pytest.mark.parametrize(
    ("address", "public"),
    [("127.0.0.1", False), ("127.8.0.1", False), ("::1", False), ("::ffff:127.0.0.1", False), ("localhost", False),
     ("0.0.0.0", True), ("::", True), ("192.168.1.7", True), ("fe80::1%eth0", True), ("worker.example", True)],
)  # fmt: skip
def test_an_address_is_public_unless_it_leads_back_to_the_machine(address: str, public: bool) -> None:
    assert listeners.is_public(address) is public
