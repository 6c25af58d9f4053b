"""The uploader: the only process with bucket keys. Uploads finished videos to the store and verifies them."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial
from typing import Any

from errors import Unavailable
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import UPLOAD
from jobqueue.worker import work
from service import Loop, is_finishing, recovering, run, start
from settings import Settings
from uploader.stores import Store, StoreRefused
from uploader.upload import Upload

log = logging.getLogger(__name__)

THREADS = 2
#: How often the store's state is published, and how often the store is checked while it rejects us and while it accepts us (a
#: key may be revoked; B2 charges per call), in seconds.
PUBLISH_EVERY_S = 5.0
CHECK_AGAIN_S, CHECK_STILL_S = 60.0, 600.0


def open_store(settings: Settings) -> Store:
    """B2 if its keys are set, otherwise the folder that the api serves."""
    if settings.stores_in_b2:
        from uploader.stores.b2 import B2Store  # b2sdk is slow and large to import; the local store does not need it

        return B2Store(
            key_id=settings.B2_KEY_ID or "",
            app_key=settings.B2_APP_KEY or "",
            bucket=settings.B2_BUCKET_NAME or "",
            realm=settings.B2_REALM,
        )
    from uploader.stores.directory import DirectoryStore

    return DirectoryStore(root=settings.data_dir / "outputs", base_url=f"http://127.0.0.1:{settings.HTTP_PORT}")


def check(store: Store, control: Control, stop: threading.Event) -> None:
    """Check periodically whether the store accepts us, and publish the result; while it does not, no job is claimed."""
    while not stop.is_set():
        try:
            said = _asked(store, control)
        except ERRORS as error:
            log.error("the queue cannot be written, trying again: %s", error)
            stop.wait(PUBLISH_EVERY_S)
            continue
        for _ in range(int((CHECK_STILL_S if said["ok"] else CHECK_AGAIN_S) / PUBLISH_EVERY_S)):
            control.publish("uploader", said)
            if stop.wait(PUBLISH_EVERY_S):
                return


def _asked(store: Store, control: Control) -> dict[str, Any]:
    """The store's current state, for the other programs."""
    error = None
    try:
        store.check()
    except StoreRefused as refused:
        error = str(refused)
        if control.put_up("unfit", error, "uploader"):
            log.error("%s", error)
    except Unavailable as unavailable:
        error = unavailable.message
        log.warning("%s; finished videos wait on this machine", error)
    else:
        control.take_down("unfit", by="uploader")
    return {"store": store.name, "ok": error is None, "error": error, "checked_at": clock.utc()}


def main() -> int:
    service = start("uploader")
    settings = service.settings
    queue, control, _ = service.open_queue()
    store = open_store(settings)
    stage = Upload(store=store, prefix=settings.B2_PREFIX, data_dir=settings.data_dir, worker_id=settings.worker_id)

    def upload(number: int, stop: threading.Event) -> None:
        work(UPLOAD, stage.do, queue, f"{service.owner}.{number}", stop, timeout_s=settings.JOB_TIMEOUT_SEC)

    loops: dict[str, Loop] = {f"upload-{number}": partial(upload, number) for number in range(THREADS)}
    loops["check"] = partial(check, store, control)
    return run(
        service, {"recover": recovering(service, queue)}, queue.bell.ring, loops, lambda: is_finishing(queue, settings.run_dir)
    )


if __name__ == "__main__":
    sys.exit(main())
