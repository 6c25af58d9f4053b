"""What the uploader says of its store, and whose flag it takes down."""

from __future__ import annotations

import threading
from pathlib import Path

from jobqueue.control import Control
from jobqueue.database import Database
from jobqueue.migrations import prepare
from tests.patience import until
from uploader.__main__ import check
from uploader.stores import StoreRefused
from uploader.stores.directory import DirectoryStore


class Relents(DirectoryStore):
    """Refuses us for as long as `refuses` says."""

    refuses = True

    def check(self) -> None:
        if self.refuses:
            raise StoreRefused("B2_APP_KEY: the key may not write")


class Impatient(threading.Event):
    """Nobody waits for a minute here."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.02)


def test_a_store_that_relents_does_not_make_an_unfit_engine_fit(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    control, store, stop = Control(Database(tmp_path / "jobs.db")), Relents(tmp_path / "outputs", "http://x"), Impatient()
    control.put_up("unfit", "no weights", "inference")
    looking = threading.Thread(target=check, args=(store, control, stop))
    looking.start()
    until(lambda: control.published().get("uploader", {}).get("ok") is False)
    store.refuses = False
    until(lambda: control.published()["uploader"]["ok"])
    stop.set()
    looking.join()
    assert control.flags()["unfit"]["reason"] == "no weights"


def test_the_flag_that_the_store_put_up_goes_when_it_relents(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    control, store, stop = Control(Database(tmp_path / "jobs.db")), Relents(tmp_path / "outputs", "http://x"), Impatient()
    looking = threading.Thread(target=check, args=(store, control, stop))
    looking.start()
    until(lambda: control.flag("unfit"))
    store.refuses = False
    until(lambda: control.flag("unfit") is None)
    stop.set()
    looking.join()


def test_a_store_that_withdraws_its_key_is_found_out(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    control, store, stop = Control(Database(tmp_path / "jobs.db")), Relents(tmp_path / "outputs", "http://x"), Impatient()
    store.refuses = False
    looking = threading.Thread(target=check, args=(store, control, stop))
    looking.start()
    until(lambda: control.published().get("uploader", {}).get("ok"))
    store.refuses = True
    until(lambda: control.flag("unfit"))
    assert control.published()["uploader"]["ok"] is False
    stop.set()
    looking.join()
