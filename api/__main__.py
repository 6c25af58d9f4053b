"""The program `api`: `python -m api`."""

from __future__ import annotations

import serving
from api.app import Configuration, create_app
from jobqueue.job import Job
from service import LINGER_S, can_finish, start
from settings import VERSION

#: Of these, api.generate.MAX_WAITERS may wait for jobs and api.outputs.MAX_READERS may send videos; the rest answer probes.
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

    def may_wait(job: Job) -> bool:
        return not serving.is_stopping() or can_finish(job, settings.run_dir)

    serving.serve(
        lambda: create_app(configuration, service.open_queue, may_wait),
        [serving.dual_stack(settings.HTTP_PORT)],
        threads=THREADS,
        grace_s=LINGER_S + 3,
    )


if __name__ == "__main__":
    main()
