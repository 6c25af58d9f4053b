"""The image, built and run: everything that `docker/check` looks at, where containers can be run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.__main__ import EXIT_CANNOT

CHECKOUT = Path(__file__).resolve().parents[2]
#: What docker/check is told here, like --pull, or --base for a base image of one's own. Nothing is downloaded by default.
ARGUMENTS = shlex.split(os.environ.get("IMAGE_CHECK_ARGUMENTS", ""))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_promised_of_the_image_holds() -> None:
    done = subprocess.run([CHECKOUT / "docker" / "check", *ARGUMENTS], capture_output=True, text=True, check=False)
    print(done.stdout)
    if done.returncode == EXIT_CANNOT:
        pytest.skip(done.stderr.strip())
    broken = [line for line in done.stdout.splitlines() if not line.startswith(("ok  ", "all hold"))]
    assert done.returncode == 0, "\n".join(broken) + done.stderr


def test_without_a_container_tool_the_reason_is_told() -> None:
    environ = {"PATH": "/nonexistent", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "tests.image"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_CANNOT
    assert done.stderr.startswith("the image cannot be tried out here: docker: is not installed; podman: is not installed")


def test_it_says_how_it_is_used() -> None:
    done = subprocess.run([CHECKOUT / "docker" / "check", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--base" in done.stdout
    assert "Exit codes" in done.stdout
