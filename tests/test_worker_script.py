"""The `worker` script: it sets up what is not there, once, and mends what was broken off."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "worker"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def made(folder: Path) -> Path:
    here = folder / "a checkout"
    (here / "requirements").mkdir(parents=True)
    (here / "cli").mkdir()
    shutil.copy(SCRIPT, here / "worker")
    for name in ("worker", "test", "engine"):
        (here / "requirements" / f"{name}.txt").write_text(f"# nothing for {name}\n")
    (here / "cli" / "__main__.py").write_text("import os, sys\nprint(sys.prefix, os.getcwd(), *sys.argv[1:], sep='|')\n")
    return here


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing to install and a command line that says where it runs."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def once_set_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = made(tmp_path_factory.mktemp("once"))
    assert run(here).returncode == 0
    return here


@pytest.fixture
def ready(once_set_up: Path, tmp_path: Path) -> Path:
    """A checkout whose first run was before."""
    return shutil.copytree(once_set_up, tmp_path / "a checkout", symlinks=True)


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | variables


def run(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(checkout / "worker"), *arguments]
    environ = environment(**variables)
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, timeout=100, check=False)


def test_the_first_run_sets_up_and_the_second_only_runs(checkout: Path) -> None:
    first = run(checkout, "status", "--json")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{checkout}/.venv|/|status|--json\n"
    assert "installing requirements/worker.txt" in first.stderr
    second = run(checkout, "status")
    assert (second.returncode, second.stderr) == (0, "")


def test_a_changed_list_of_requirements_is_installed(ready: Path) -> None:
    (ready / "requirements" / "worker.txt").write_text("# nothing, newly\n")
    assert "installing requirements/worker.txt" in run(ready).stderr
    assert "installing requirements/test.txt" in run(ready, "test").stderr
    assert run(ready).stderr == ""


def test_the_engines_needs_are_installed_when_asked_for(ready: Path) -> None:
    assert "requirements/engine.txt" not in run(ready, "setup").stderr
    assert "installing requirements/engine.txt" in run(ready, "setup", "--engine", "--json").stderr
    again = run(ready, "setup", "--engine")
    assert (again.stdout, again.stderr) == (f"{ready}/.venv|/|setup|--engine\n", "")
    assert run(ready, "status").stderr == ""  # that list holds the worker's


@pytest.mark.slow
def test_a_set_up_that_was_broken_off_is_mended(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").write_text("half a file")
    (checkout / ".venv.lock").mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    (checkout / ".venv.lock" / "pid").write_text(f"{dead.pid}\n")
    mended = run(checkout)
    assert mended.returncode == 0, mended.stderr
    assert not (checkout / ".venv.lock").exists()


@pytest.mark.slow
def test_an_environment_whose_python_is_gone_is_made_anew(ready: Path) -> None:
    """As after an upgrade of the system."""
    python = ready / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    mended = run(ready, "status")
    assert mended.returncode == 0, mended.stderr
    assert "installing requirements/worker.txt" in mended.stderr


@pytest.mark.slow
def test_two_at_once_do_not_collide(checkout: Path) -> None:
    command = [str(checkout / "worker"), "status"]
    both = [subprocess.Popen(command, env=environment(), stdout=-1, stderr=-1, text=True) for _ in range(2)]
    told = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum("creating an environment" in stderr for _, stderr in told) == 1


def test_an_interpreter_that_is_given_is_used_as_it_is(checkout: Path) -> None:
    python = shutil.which("python3") or ""
    done = run(checkout, "up", WORKER_PYTHON=python)
    assert done.returncode == 0
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("python", ["#!/bin/sh\nexit 1\n", None])
def test_a_python_that_is_too_old_or_missing_is_said(checkout: Path, tmp_path: Path, python: str | None) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "readlink", "mkdir", "rm", "kill", "sleep"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    if python is not None:
        (tools / "python3").write_text(python)
        (tools / "python3").chmod(0o755)
    done = run(checkout, "status", PATH=str(tools))
    assert done.returncode == 1
    assert "Python 3.11 or later is needed" in done.stderr


def test_packages_that_cannot_be_had_are_said(ready: Path) -> None:
    (ready / "requirements" / "worker.txt").write_text("no-such-package-by-any-name==1\n")
    done = run(ready, PIP_NO_INDEX="1", PIP_FIND_LINKS="", UV_NO_INDEX="1")
    assert done.returncode == 1
    assert "is a package index reachable?" in done.stderr
    assert not (ready / ".venv" / ".installed-worker").exists()
