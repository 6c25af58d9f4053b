"""What every command has."""

from __future__ import annotations

import pytest

from cli.__main__ import COMMANDS
from tests.cli.conftest import Run

#: Those that only group others take no --json themselves.
GROUPS = ("models", "token")


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - set(GROUPS)))
def test_every_command_explains_itself_and_speaks_json(worker: Run, command: str) -> None:
    done = worker(command, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert done.stdout.startswith(f"Usage: worker {command}")


def test_the_commands_are_listed(worker: Run) -> None:
    listed = worker("--help").stdout
    assert all(f"\n  {command} " in listed for command in COMMANDS)


def test_an_unknown_command_or_option_ends_with_2(worker: Run) -> None:
    assert worker("fly").returncode == 2
    assert worker("status", "--fast").returncode == 2


def test_without_a_queue_the_answer_is_what_to_do(worker: Run) -> None:
    done = worker("status")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("no queue yet; start the worker with: worker up")
    assert len(done.stderr.splitlines()) == 1
