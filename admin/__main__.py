"""`python -m admin`: the operator's page."""

from __future__ import annotations

import logging

import flask

import serving
from admin import Worker, create_app
from admin.access import Access, secret_of
from jobqueue.samples import Samples, samples_file
from operations import Operator
from service import start
from settings import Settings, secret_values
from telemetry.logs import masker

log = logging.getLogger(__name__)

THREADS = 16


def main() -> None:
    """Serve until SIGTERM."""
    service = start("admin")
    settings = service.settings
    secret = secret_of(settings.ADMIN_PASSWORD, settings.data_dir)

    def app() -> flask.Flask:
        queue, control, outbox = service.open_queue()
        if not settings.ADMIN_PASSWORD:
            operator = Operator(actor="admin", queue=queue, control=control, outbox=outbox)
            log.info("log in once, within 15 minutes: %s", operator.login_link(page_url(settings)))
        access, mask = Access(secret, control), masker([*secret_values(settings), secret])
        samples = Samples(samples_file(settings.data_dir))
        worker = Worker(
            settings=settings, queue=queue, control=control, outbox=outbox, samples=samples, access=access, mask=mask
        )
        return create_app(worker)

    host = f"[{settings.ADMIN_HOST}]" if ":" in settings.ADMIN_HOST else settings.ADMIN_HOST
    serving.serve(app, [f"{host}:{settings.ADMIN_PORT}"], threads=THREADS)


def page_url(settings: Settings) -> str:
    """Where a browser on this machine finds the page."""
    host = "127.0.0.1" if settings.ADMIN_HOST in ("0.0.0.0", "::") else settings.ADMIN_HOST  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ADMIN_PORT}"


if __name__ == "__main__":
    main()
