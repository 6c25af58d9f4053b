"""The telemetry loop, with the cards that a test hands it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobqueue import samples
from poller import sample
from tests.patience import until

CARD = {"uuid": "GPU-a", "index": 0, "utilization_gpu": 80, "throttle_reasons": []}


@contextmanager
def sampling(path: Path, cards: list[dict[str, Any]], asked: list[str]) -> Iterator[None]:
    def read(only: str) -> list[dict[str, Any]]:
        asked.append(only)
        return list(cards)

    stop = threading.Event()
    thread = threading.Thread(target=sample.loop(path, "0", read), args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_the_wanted_cards_do_is_kept_every_second(tmp_path: Path) -> None:
    path, asked = samples.samples_file(tmp_path), list[str]()
    with sampling(path, [CARD], asked):
        found = until(lambda: samples.Samples(path).columns(0, 1).get("GPU-a"))
        assert found["load"][0] == 80
        until(lambda: len(samples.Samples(path).columns(0, 1)["GPU-a"]["at"]) > 1)
    assert set(asked) == {"0"}


def test_a_machine_without_a_card_is_asked_ever_more_seldom_and_keeps_nothing(tmp_path: Path) -> None:
    asked: list[str] = []
    with sampling(samples.samples_file(tmp_path), [], asked):
        until(lambda: asked)
    assert len(asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").mkdir()
    asked: list[str] = []
    with sampling(samples.samples_file(tmp_path), [CARD], asked):
        until(lambda: asked)
