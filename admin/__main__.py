"""`python -m admin`: the operator's page."""

from __future__ import annotations

import logging

import flask

import serving
from admin import Worker, create_app, security
from service import start
from settings import Settings

log = logging.getLogger(__name__)

THREADS = 16


def main() -> None:
    service = start("admin")
    settings = service.settings
    secret = security.secret_of(settings.ADMIN_PASSWORD, settings.data_dir)

    def app() -> flask.Flask:
        queue, control, outbox = service.open_queue()
        worker = Worker(settings=settings, queue=queue, control=control, outbox=outbox, secret=secret)
        if not settings.ADMIN_PASSWORD:
            log.info("log in once, within 15 minutes: %s", login_link(settings))
        return create_app(worker)

    host = f"[{settings.ADMIN_HOST}]" if ":" in settings.ADMIN_HOST else settings.ADMIN_HOST
    serving.serve(app, [f"{host}:{settings.ADMIN_PORT}"], threads=THREADS)


def login_link(settings: Settings) -> str:
    """A link that logs in once. The code is behind the #, so that it reaches no server's log."""
    host = "127.0.0.1" if settings.ADMIN_HOST in ("0.0.0.0", "::") else settings.ADMIN_HOST  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.ADMIN_PORT}/login#code={security.make_code(settings.data_dir)}"


if __name__ == "__main__":
    main()
