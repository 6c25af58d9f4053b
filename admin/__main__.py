"""`python -m admin`: the operator's page."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import flask

import serving
from admin import Worker, create_app, shown
from admin.access import Access, Secret
from answers import page_url
from jobqueue.samples import Samples, samples_file
from operations import Operator
from service import start
from settings import secret_values
from telemetry.logs import masker

log = logging.getLogger(__name__)

THREADS = 16
#: How long an operator's action waits for a queue that others write to, in seconds.
PATIENCE_S = 5.0


def main() -> None:
    """Serve until SIGTERM."""
    service = start("admin")
    settings = service.settings
    secret = Secret(settings.ADMIN_PASSWORD, settings.data_dir)

    def app() -> flask.Flask:
        queue, control, outbox = service.open_queue(PATIENCE_S)
        if not settings.ADMIN_PASSWORD:
            operator = Operator(actor="admin", queue=queue, control=control, outbox=outbox)
            log.info("log in once, within 15 minutes: %s", operator.login_link(page_url(settings)))
        access, mask = Access(secret, control, settings.ADMIN_VIEW_PASSWORD), _mask(secret_values(settings), secret)
        shown.remember(settings, queue.database)
        samples = Samples(samples_file(settings.data_dir))
        worker = Worker(
            settings=settings, queue=queue, control=control, outbox=outbox, samples=samples, access=access, mask=mask
        )
        return create_app(worker)

    host = f"[{settings.ADMIN_HOST}]" if ":" in settings.ADMIN_HOST else settings.ADMIN_HOST
    serving.serve(app, [f"{host}:{settings.ADMIN_PORT}"], threads=THREADS)


def _mask(secrets: list[str], secret: Secret) -> Callable[[str], str]:
    """Takes the secrets out of a text: those of the environment, and what lets in now."""
    masks = functools.lru_cache(maxsize=2)(lambda known: masker([*secrets, known]))
    return lambda text: masks(secret.known)(text)


if __name__ == "__main__":
    main()
