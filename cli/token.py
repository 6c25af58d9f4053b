"""`worker token …`: the password that the worker made for its page and its API, shown or replaced."""

from __future__ import annotations

import click

import answers
from cli.answer import EXIT_NOT_FOUND, EXIT_REFUSED, Failure, Worker, open_worker, say, with_json


@click.group()
def token() -> None:
    """What logs in to the admin page, and programs to its API, where ADMIN_PASSWORD is not set."""


@token.command()
@with_json
def show(as_json: bool) -> None:
    """Print the token."""
    worker = _with_token()
    kept = worker.operator.token(worker.settings.data_dir)
    if kept is None:
        raise Failure(f"{worker.settings.data_dir}: there is no token yet; the page makes one when it starts", EXIT_NOT_FOUND)
    say(kept, {"token": kept}, as_json)


@token.command()
@with_json
def rotate(as_json: bool) -> None:
    """Replace the token. It holds at once: every log-in ends, and programs need the new one."""
    worker = _with_token()
    worker.operator.replace_token(worker.settings.data_dir)
    say("the token was replaced and every log-in has ended; worker token show prints it", {"changed": True}, as_json)


def _with_token() -> Worker:
    """The worker, unless its page has a password that somebody else keeps. A shell may lack the worker's own variables."""
    worker = open_worker()
    if answers.status(worker.settings, worker.operator).get("page_secret") == "ADMIN_PASSWORD":
        line = "the page's password is ADMIN_PASSWORD, of the worker's environment: change it there, then start the worker anew"
        raise Failure(line, EXIT_REFUSED)
    return worker
