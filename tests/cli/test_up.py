"""Each thing that keeps the worker from starting is one line that names the variable, and exit code 2."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import settings
from cli.up import environment
from jobqueue.migrations import prepare
from tests.cli.conftest import Run

WRONG = [
    ({"ENGINE": "magic"}, "ENGINE=magic: must be musetalk, fastwan, preview"),
    ({"ENGINE": "my.own.engine"}, "ENGINE=my.own.engine: no such module"),
    ({"WORKER_MODE": "solo"}, "WORKER_MODE=solo: "),
    ({"ORCHESTRATOR_BASE_URL": "example.com"}, "ORCHESTRATOR_BASE_URL=example.com: must be an http:// or https://"),
    ({"WORKER_MODE": "main"}, "ORCHESTRATOR_BASE_URL: is missing"),
    ({"B2_KEY_ID": "key", "B2_APP_KEY": "secret"}, "B2_BUCKET_NAME: is missing"),
    ({"HTTP_PORT": "http"}, "HTTP_PORT=http: "),
    ({"HTTP_PORT": "8123", "ADMIN_PORT": "8123"}, "ADMIN_PORT=8123: is also HTTP_PORT"),
    ({"ADMIN_HOST": "192.0.2.7", "HTTP_PORT": "0"}, "HTTP_PORT=0: "),
    ({"ADMIN_PASSWORD": "short"}, "ADMIN_PASSWORD: is too short"),
    ({"DATA_DIR": "/proc/nowhere"}, "DATA_DIR=/proc/nowhere: cannot be written"),
]


def test_the_cards_that_are_chosen_are_all_that_the_programs_see(tmp_path: Path) -> None:
    everything, one = (settings.load({"DATA_DIR": str(tmp_path), "GPUS": cards}) for cards in ("all", "1"))
    seen = environment(one)
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert environment(everything).get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("variables", "line"), WRONG, ids=[line for _, line in WRONG])
def test_a_wrong_setting_is_refused_with_one_line(worker: Run, variables: dict[str, str], line: str) -> None:
    done = worker("up", **variables)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["HTTP_PORT", "ADMIN_PORT"])
def test_a_port_in_use_is_refused(worker: Run, taken: int, name: str) -> None:
    done = worker("up", **{name: str(taken)})
    assert done.returncode == 2
    assert done.stderr == f"{name}={taken}: is in use by another program; must be a free port from 1 to 65535\n"


def test_an_address_of_another_machine_is_refused(worker: Run) -> None:
    done = worker("up", ADMIN_HOST="192.0.2.7")
    assert done.stderr == "ADMIN_HOST=192.0.2.7: must be an address of this machine, like 127.0.0.1\n"


def test_a_second_worker_on_the_folder_is_refused(worker: Run, folder: Path) -> None:
    (folder / "data" / "locks").mkdir(parents=True)
    with (folder / "data" / "locks" / "worker").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = worker("up")
    assert done.returncode == 2
    assert done.stderr == f"DATA_DIR={folder}/data: another worker is using this folder; stop it, or choose another folder\n"


def test_a_queue_of_a_newer_version_is_refused(worker: Run, folder: Path) -> None:
    prepare(folder / "data" / "jobs.db")
    with contextlib.closing(sqlite3.connect(folder / "data" / "jobs.db")) as newer:
        newer.execute("pragma user_version = 99")
    done = worker("up")
    assert done.returncode == 2
    assert "was written by a newer worker (version 99" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_path_too_long_for_a_socket_is_refused(worker: Run, folder: Path) -> None:
    (folder / ("long" * 20)).mkdir()
    done = worker("up", TMPDIR=str(folder / ("long" * 20)))
    assert done.returncode == 2
    assert done.stderr.startswith("TMPDIR=")
    assert "is too long for sockets" in done.stderr


def test_a_folder_for_sockets_that_somebody_else_has_put_there_is_refused(worker: Run, folder: Path) -> None:
    name = settings.load({"DATA_DIR": str(folder / "data")}).run_dir.name
    (folder / name).symlink_to(folder)
    done = worker("up")
    assert done.returncode == 2
    assert done.stderr.startswith(f"TMPDIR={folder}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_unknown_user_is_refused(worker: Run) -> None:
    done = worker("up", WORKER_USER="nobody-of-that-name")
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "WORKER_USER=nobody-of-that-name")
