"""`worker token …`: show or replace the generated password of the page and its API."""

from __future__ import annotations

import click

import answers
from cli.answer import EXIT_NOT_FOUND, EXIT_REFUSED, Failure, Worker, open_worker, say, with_json


@click.group()
def token() -> None:
    """Manage the token of the admin page and its API, used if ADMIN_PASSWORD is not set."""


@token.command()
@with_json
def show(as_json: bool) -> None:
    """Print the token."""
    worker = _with_token()
    kept = worker.operator.token(worker.settings.data_dir)
    if kept is None:
        raise Failure(f"{worker.settings.data_dir}: no token yet; the page makes one when it starts", EXIT_NOT_FOUND)
    say(kept, {"token": kept}, as_json)


@token.command()
@with_json
def rotate(as_json: bool) -> None:
    """Replace the token at once: every session ends, and programs need the new token."""
    worker = _with_token()
    worker.operator.replace_token(worker.settings.data_dir)
    say("the token was replaced and every session has ended; worker token show prints it", {"changed": True}, as_json)


def _with_token() -> Worker:
    """The worker, unless its page has a password that somebody else keeps. A shell may lack the worker's own variables."""
    worker = open_worker()
    if answers.status(worker.settings, worker.operator).get("page_secret") == "ADMIN_PASSWORD":
        line = "the page's password is ADMIN_PASSWORD in the worker's environment: change it there, then restart the worker"
        raise Failure(line, EXIT_REFUSED)
    return worker
