"""`python -m orchestrator`: the reference orchestrator as a program, until SIGTERM.

The key may come from INTERNAL_API_KEY and the password from DATABASE_URL, which keeps them out of the process list.
"""

from __future__ import annotations

import errno
import functools
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import click

import service
import serving
from orchestrator import sqlite
from orchestrator.app import create_app
from orchestrator.jobs import Rules
from orchestrator.transaction import Database, WrongDatabase
from telemetry import logs

log = logging.getLogger(__name__)

THREADS = 8
#: How long a dead predecessor may still hold the port, in seconds.
PORT_PATIENCE_S = 3.0

#: What must not be logged, where the jobs are, and how to open that after the fork.
Prepared = tuple[list[str], str, Callable[[], Database]]


@click.command(help="A reference orchestrator: owns jobs and assigns them to workers, according to PROTOCOL.md.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(1, 65535))
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder of its database, for one machine.")
@click.option(
    "--database-url",
    envvar="DATABASE_URL",
    show_envvar=True,
    help="Instead of --data, for a fleet: postgresql://user@host/name.",
)
@click.option("--api-key", envvar="INTERNAL_API_KEY", show_envvar=True, help="Key that clients send as X-Internal-API-Key.")
@click.option(
    "--silence-s", default=30.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="Silence before a requeue."
)
@click.option("--max-requeues", default=4, show_default=True, type=click.IntRange(0, 1000), help="Requeues before it fails.")
@click.option(
    "--keep-days", default=30, show_default=True, type=click.IntRange(0, 36_500), help="Days to keep an ended job; 0: for ever."
)
@click.option("--log-format", default="text", show_default=True, type=click.Choice(["text", "json"]))
def main(
    host: str,
    port: int,
    data: Path | None,
    database_url: str | None,
    api_key: str | None,
    silence_s: float,
    max_requeues: int,
    keep_days: int,
    log_format: str,
) -> None:
    service.die_with_parent()
    key = _checked(api_key)
    if bool(data) == bool(database_url):
        service.refuse("--data, DATABASE_URL: one of the two is needed: a folder, or postgresql://user:password@host/name")
    try:
        secrets, place, open_database = _in_folder(data) if data else _on_server(database_url or "")
    except WrongDatabase as error:
        service.refuse(str(error))
    logs.set_up("orchestrator", log_format, None, [key, *secrets])
    _check_port(host, port)
    log.info("listening on %s port %d, jobs in %s, silence is %g s", host, port, place, silence_s)
    rules = Rules(silence_s=silence_s, max_requeues=max_requeues, keep_days=keep_days)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    serving.serve(functools.partial(create_app, open_database, key, rules), [address], threads=THREADS)


def _in_folder(data: Path) -> Prepared:
    file = data.absolute() / "orchestrator.db"
    try:
        if not service.lock(data.absolute(), "orchestrator"):
            service.refuse(f"--data {data}: another orchestrator is using it; stop it or choose another folder")
        sqlite.prepare(file)
    except OSError as error:
        service.refuse(f"--data {data}: {error.strerror}; must be a folder that this program can write to")
    return [], str(file), functools.partial(sqlite.Sqlite, file)


def _on_server(url: str) -> Prepared:
    try:
        from orchestrator import postgres
    except ImportError:
        service.refuse("DATABASE_URL: the driver for PostgreSQL is missing; install it with: pip install 'psycopg[binary]'")
    secrets = postgres.secrets(url)
    postgres.prepare(url)
    return secrets, postgres.place(url), functools.partial(postgres.Postgres, url)


def _checked(key: str | None) -> str:
    """The key without surrounding spaces, as workers send it."""
    if not (key := (key or "").strip()):
        service.refuse("INTERNAL_API_KEY: is missing; set it, or pass --api-key")
    if not key.isprintable():
        service.refuse("INTERNAL_API_KEY: contains a line break or another control character; must be one line of text")
    return key


def _check_port(host: str, port: int) -> None:
    """Exit with one line if the port is taken; a dead predecessor may hold it for a moment."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while True:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                service.refuse(f"--port {port}: cannot listen on {host}: {error.strerror}; choose a free port of this machine")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
