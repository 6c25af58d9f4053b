"""The telemetry loop, with the cards that a test hands it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobqueue import samples
from poller import sample
from tests.fakes import nvml
from tests.patience import until
from tests.poller.house import House
from tests.poller.test_process import poller

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


def test_what_cannot_be_kept_leaves_no_file_open(tmp_path: Path) -> None:
    asked, before = list[str](), len(os.listdir("/proc/self/fd"))
    with sampling(samples.samples_file(tmp_path), [CARD | {"utilization_gpu": "much"}], asked):
        until(lambda: asked)
    assert samples.Samples(samples.samples_file(tmp_path)).mark() == (0, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_poller_keeps_what_the_drivers_library_tells(house: House, tmp_path: Path) -> None:
    if nvml.compiler() is None:
        pytest.skip("needs a C compiler")
    state = tmp_path / "gpu"
    nvml.write_state(
        state, {"count": 2, "utilization_gpu": 73, "utilization_encoder": 12, "1.unsupported": "nvmlDeviceGetTemperature"}
    )
    library = nvml.build(tmp_path)
    with poller(house, **nvml.environment(library, state)):
        path = samples.samples_file(house.data_dir)
        found = until(lambda: samples.Samples(path).columns(0, 1))
    assert [columns["load"][0] for columns in found.values()] == [73, 73]
    assert [columns["temperature_c"][0] for columns in found.values()] == [41, None]
    assert {columns["encoder"][0] for columns in found.values()} == {12}
