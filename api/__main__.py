"""The program `api`: `python -m api`."""

from __future__ import annotations

import serving
from api.app import Configuration, create_app
from service import start
from settings import VERSION

#: Of these, api.generate.MOST_WAITERS may wait for jobs and api.outputs.MOST_READERS send videos; the rest answer probes.
THREADS = 32


def main() -> None:
    """Serve until SIGTERM."""
    service = start("api")
    settings = service.settings
    configuration = Configuration(
        engine=settings.ENGINE,
        mode=settings.mode,
        version=VERSION,
        data_dir=settings.data_dir,
        token=settings.API_TOKEN,
        gpu_class=settings.GPU_CLASS_NAME,
        patience_s=settings.JOB_TIMEOUT_SEC * 3 + 60,
    )
    serving.serve(
        lambda: create_app(configuration, service.open_queue, serving.is_stopping),
        [serving.dual_stack(settings.HTTP_PORT)],
        threads=THREADS,
    )


if __name__ == "__main__":
    main()
