"""The output of a command: text for people or JSON, and meaningful exit codes. No colors, so nothing to turn off."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

import settings as settings_module
from cli import user
from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.migrations import WrongDatabase, check_version
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import Operator
from settings import Settings, SettingsError

#: Exit codes besides 0 (success) and 2 (wrong usage or settings).
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_YET = 3
EXIT_NOT_FOUND = 4
EXIT_REFUSED = 5

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """One line on standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click means it as a default

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The worker of this DATA_DIR, running or not."""

    settings: Settings
    operator: Operator


def with_json(command: F) -> F:
    """Add the option --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def say(text: str, data: Any, as_json: bool) -> None:
    """Print the command's answer on standard output."""
    click.echo(json.dumps(data, ensure_ascii=False, default=str) if as_json else text)


def load_settings(**changes: str | None) -> Settings:
    """The settings from the environment, with some variables changed; ends the command if they are invalid."""
    try:
        return settings_module.load(settings_module.child_environment(**changes))
    except SettingsError as error:
        raise Failure(str(error), EXIT_USAGE) from None


def act_as_worker(settings: Settings, *, owner: bool = False) -> None:
    """Switch to WORKER_USER if this is root. owner: the command starts the worker, so first give that user DATA_DIR."""
    try:
        if owner:
            user.give_folder(settings)
        user.become(settings)
    except SettingsError as error:
        raise Failure(str(error), EXIT_USAGE) from None


def open_worker() -> Worker:
    """The queue of DATA_DIR, to read and to act on; works even while no program runs."""
    settings = load_settings()
    act_as_worker(settings)
    try:
        check_version(settings.database)
    except WrongDatabase as error:
        raise Failure(str(error), EXIT_FAILED) from None
    database = Database(settings.database)
    return Worker(
        settings=settings,
        operator=Operator(actor=f"cli:{_user()}", queue=Queue(database), control=Control(database), outbox=Outbox(database)),
    )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn an operation's refusal into the command's failure."""
    try:
        yield
    except ValueError as error:
        raise Failure(str(error), EXIT_USAGE) from None


def not_found(job_id: str) -> NoReturn:
    raise Failure(f"{job_id}: no such job", EXIT_NOT_FOUND)


def _user() -> str:
    """Who acts, and from which address if connected over ssh."""
    address = settings_module.child_environment().get("SSH_CLIENT", "").split(" ")[0]
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        name = str(os.getuid())
    return f"{name}@{address}" if address else name
