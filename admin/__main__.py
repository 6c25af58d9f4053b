"""The program `admin`: `python -m admin`."""

from __future__ import annotations

import serving
from admin.app import create_app
from admin.panel import Configuration
from service import start
from settings import VERSION, secret_values

#: Of these, admin.panel.MOST_READERS may send files; the rest answer pages.
THREADS = 16


def main() -> None:
    """Serve until SIGTERM."""
    service = start("admin")
    settings = service.settings
    host = f"[{settings.ADMIN_HOST}]" if ":" in settings.ADMIN_HOST else settings.ADMIN_HOST
    everywhere = settings.ADMIN_HOST in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    configuration = Configuration(
        worker_id=settings.worker_id,
        engine=settings.ENGINE,
        mode=settings.mode,
        provider=settings.provider,
        version=VERSION,
        data_dir=settings.data_dir,
        orchestrator=settings.orchestrator_url,
        poll_interval_s=settings.poll_interval_s,
        password=settings.ADMIN_PASSWORD,
        secrets=secret_values(settings),
        page_url=f"http://{'127.0.0.1' if everywhere else host}:{settings.ADMIN_PORT}",
    )
    serving.serve(lambda: create_app(configuration, service.open_queue), [f"{host}:{settings.ADMIN_PORT}"], threads=THREADS)


if __name__ == "__main__":
    main()
