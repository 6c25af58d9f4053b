from __future__ import annotations

import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil

from settings import VERSION
from tests.api.program import JOB, ROOT, answers, running
from tests.patience import until


def test_a_killed_api_leaves_no_process_and_its_port_is_free_again(data_dir: Path) -> None:
    with running(data_dir) as api:
        children = psutil.Process(api.process.pid).children(recursive=True)
        assert children
        with socket.create_connection(("127.0.0.1", api.port)) as waiting:
            waiting.sendall(b"POST /generate HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            api.process.kill()
            api.process.wait()
            until(lambda: not [child for child in children if child.is_running()])
    with socket.socket(socket.AF_INET6) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("::", api.port))


def test_a_worker_process_that_dies_is_replaced_and_the_job_can_be_joined(data_dir: Path) -> None:
    with running(data_dir) as api:
        (child,) = psutil.Process(api.process.pid).children()
        with socket.create_connection(("127.0.0.1", api.port)) as waiting:
            body = str(JOB).replace("'", '"').encode()
            waiting.sendall(b"POST /generate HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            until(lambda: api.queue.get("j1"))
            child.kill()
        until(lambda: answers(api.port))
        assert [job.id for job in api.queue.unfinished()] == ["j1"]


def test_settings_that_are_wrong_end_it_with_one_line(data_dir: Path) -> None:
    command = [sys.executable, "-m", "api"]
    ended = subprocess.run(
        command, cwd=ROOT, env={"HTTP_PORT": "0", "DATA_DIR": str(data_dir)}, capture_output=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith("HTTP_PORT=0: ")
    assert ended.stderr.count(b"\n") == 1


def test_the_version_is_the_one_of_the_project_file() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
