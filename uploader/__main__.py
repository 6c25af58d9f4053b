"""The uploader: the only process with bucket keys. Puts finished videos into the store and has them confirmed."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial

from errors import Unavailable
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import UPLOAD
from jobqueue.worker import work
from service import Loop, is_finishing, run, start
from settings import Settings
from uploader.stores import Store, StoreRefused
from uploader.upload import Upload

log = logging.getLogger(__name__)

THREADS = 2
#: How often the store's state is published, and how often a store that refuses us is asked again, in seconds.
PUBLISH_EVERY_S = 5.0
CHECK_AGAIN_S = 60.0


def open_store(settings: Settings) -> Store:
    """B2 when its keys are set, else the folder that the api serves."""
    if settings.stores_in_b2:
        from uploader.stores.b2 import B2Store  # b2sdk takes its time and memory; the local store does without

        return B2Store(
            key_id=settings.B2_KEY_ID or "",
            app_key=settings.B2_APP_KEY or "",
            bucket=settings.B2_BUCKET_NAME or "",
            realm=settings.B2_REALM,
        )
    from uploader.stores.directory import DirectoryStore

    return DirectoryStore(root=settings.data_dir / "outputs", base_url=f"http://127.0.0.1:{settings.HTTP_PORT}")


def check(store: Store, control: Control, stop: threading.Event) -> None:
    """Ask the store whether it will have us, at start and while it will not; meanwhile no job is claimed."""
    while not stop.is_set():
        try:
            _ask(store, control, stop)
        except ERRORS as error:
            log.error("the queue cannot be written, trying again: %s", error)
            stop.wait(PUBLISH_EVERY_S)


def _ask(store: Store, control: Control, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            store.check()
        except StoreRefused as error:
            log.error("%s", error)
            _publish(control, store, str(error))
            control.put_up("unfit", str(error), "uploader")
            stop.wait(CHECK_AGAIN_S)
        except Unavailable as error:
            log.warning("%s; finished videos wait here", error.message)
            _publish(control, store, error.message)
            stop.wait(CHECK_AGAIN_S)
        else:
            break
    flag = control.flag("unfit")
    if flag and flag["by"] == "uploader":
        control.take_down("unfit")
    while not stop.is_set():
        _publish(control, store, None)
        stop.wait(PUBLISH_EVERY_S)


def _publish(control: Control, store: Store, error: str | None) -> None:
    control.publish("uploader", {"store": store.name, "ok": error is None, "error": error, "checked_at": clock.utc()})


def main() -> int:
    service = start("uploader")
    settings = service.settings
    queue, control, _ = service.open_queue()
    for job in queue.recover("uploader", service.owner, settings.JOB_TIMEOUT_SEC):
        log.warning("found job %s unfinished by a dead uploader; it is %s now", job.id, job.state)
    store = open_store(settings)
    stage = Upload(store=store, prefix=settings.B2_PREFIX, data_dir=settings.data_dir, worker_id=settings.worker_id)

    def upload(number: int, stop: threading.Event) -> None:
        work(UPLOAD, stage.do, queue, f"{service.owner}.{number}", stop, timeout_s=settings.JOB_TIMEOUT_SEC)

    loops: dict[str, Loop] = {f"upload-{number}": partial(upload, number) for number in range(THREADS)}
    loops["check"] = partial(check, store, control)
    return run(service, {}, queue.bell.ring, loops, lambda: is_finishing(queue, settings.run_dir))


if __name__ == "__main__":
    sys.exit(main())
