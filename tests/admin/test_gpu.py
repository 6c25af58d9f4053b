"""The GPU page and what its charts are drawn from, by the text alone: it must be right without a script."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from admin import gpu as page
from admin.processes import memory_bytes
from jobqueue.samples import COLUMNS, samples_file
from telemetry.card import THROTTLE_WORDS
from tests.admin.program import Admin, add_failed, running
from tests.fakes import past
from tests.patience import PATIENCE_S, until

SECOND = {**past.CARD, "index": 1, "uuid": "GPU-2", "name": "NVIDIA L4"}
LACKS = ("encoder", "decoder", "temperature_c", "memory_temperature_c", "memory_total_mib")
DUMB = SECOND | {"lacks": LACKS, "temperature_c": None, "memory_total_mib": None, "processes": None, "throttle_reasons": None}


@pytest.fixture(scope="module")
def filled(admin: Admin) -> Admin:
    past.fill(samples_file(admin.data_dir), [past.CARD, DUMB])
    admin.control.publish("poller", {"gpus": [past.CARD, DUMB], "gpu_health": [past.HEALTH]})
    return admin


def text(admin: Admin, browser: requests.Session, path: str) -> str:
    answer = browser.get(admin.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def told(admin: Admin, browser: requests.Session, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = browser.get(f"{admin.url}/gpu/history?{query}", timeout=PATIENCE_S).json()
    return answer


def test_each_card_is_told_in_figures(filled: Admin, browser: requests.Session) -> None:
    said = text(filled, browser, "/gpu")
    first, second = said.split("GPU 1 · NVIDIA L4")
    assert "GPU 0 · NVIDIA GeForce RTX 3090 driver 580.159.03 CUDA 13.0 persistence on PCIe 4.0 x16 memory 24.0 GiB" in first
    assert "memory 24.0 GiB power limit 350 W fan 54 %" in first
    assert "uncorrected ECC errors n/a" in first
    assert re.search(r"GPU busy 92 \d+ \d+ 9\d % video encoder \d+ \d+ \d+ 2\d %", first)
    assert re.search(r"memory used 11\.2 2\.\d \d\.\d 11\.2 GiB", first)
    assert re.search(r"1[34] % power cap: the power limit is reached", first)
    assert "pid 999999999 · hidden (a host process ID) · 10.6 GiB" in first
    assert re.search(r"memory temperature \d+ \d+ \d+ \d+ °C", first)
    assert "temperature n/a n/a n/a n/a °C" in second
    assert "persistence n/a PCIe n/a memory n/a" in second
    assert "n/a: not reported by the driver." in second
    assert "memory n/a" in second


@pytest.mark.parametrize(("name", "points"), [("20 min", 1200), ("6 h", 720), ("24 h", 720), ("nonsense", 1200)])
def test_a_range_comes_as_columns_of_one_length(filled: Admin, browser: requests.Session, name: str, points: int) -> None:
    answer = told(filled, browser, f"range={name}")
    columns = answer["cards"]["GPU-2"]
    assert set(columns) == {"at", *COLUMNS} - {"memory_load"}
    assert {len(column) for column in columns.values()} == {len(columns["at"])}
    assert abs(len(columns["at"]) - points) <= 3
    assert set(columns["temperature_c"]) == {None}
    assert columns["at"] == sorted(set(columns["at"]))


def test_only_what_is_newer_is_sent_again(filled: Admin, browser: requests.Session) -> None:
    newest = told(filled, browser, "range=20 min")["cards"]["GPU-2"]["at"][-1]
    again = told(filled, browser, f"range=20 min&after={newest - 3}")
    assert again["cards"]["GPU-2"]["at"] == [newest - 2, newest - 1, newest]
    assert told(filled, browser, f"after={newest + 100}")["cards"] == {}
    assert told(filled, browser, "after=99999999999999999999999999")["cards"] == {}


def test_the_jobs_of_the_time_are_marked(filled: Admin, browser: requests.Session) -> None:
    add_failed(filled.queue, "marked-1", {"message": "no", "error_type": "unknown_error"})
    job = next(job for job in told(filled, browser, "range=20 min")["jobs"] if job[0] == "marked-1")
    assert job[3] == "failed"
    assert job[1] <= job[2]
    assert "marked-1" in text(filled, browser, "/gpu")
    late = told(filled, browser, f"range=20 min&after={int(time.time()) + 60}")
    assert [job[0] for job in late["jobs"] if job[2]] == []


def test_without_a_card_it_says_what_to_do(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        assert "The poller, which reads the GPUs, has not reported yet." in text(own, browser, "/gpu")
        own.control.publish("poller", {"gpus": []})
        said = text(own, browser, "/gpu")
        assert "The driver shows this worker no NVIDIA GPU." in said
        assert "start the container with --gpus all" in said
        assert told(own, browser, "")["cards"] == {}


def test_a_card_that_is_lost_and_a_past_that_is_broken_are_told_of(data_dir: Path) -> None:
    lost = dict.fromkeys(past.CARD) | {"index": 0, "uuid": "GPU-3", "name": "NVIDIA L4", "lost": True}
    (data_dir / "telemetry.db").write_bytes(b"not a database at all" * 1000)
    with running(data_dir) as own:
        own.control.publish("poller", {"gpus": [lost]})
        browser = own.log_in()
        said = text(own, browser, "/gpu")
        assert "GPU 0 · NVIDIA L4 lost The card has fallen off the bus" in said
        assert "No history yet" in said
        assert "GPU busy n/a n/a n/a n/a %" in said
        assert "NVIDIA L4 lost" in text(own, browser, "/")


def told_of(admin: Admin, browser: requests.Session, **changes: Any) -> str:
    """What the page says of the health of a card that differs so from a well one."""
    card = past.CARD | {key: changes.pop(key) for key in tuple(changes) if key in past.CARD}
    admin.control.publish("poller", {"gpus": [card], "gpu_health": [past.HEALTH | changes]})
    return text(admin, browser, "/gpu").split("Health")[1].split("Processes on this card")[0]


def test_the_health_of_a_card_is_told_in_words_with_what_to_do(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        well = told_of(own, browser)
        assert "To do" not in well
        for words in (
            "PCIe 4.0 x16: the maximum of card and slot",
            "ECC n/a; corrected ECC errors n/a, uncorrected ECC errors n/a",
            "remapped rows 0",
            "slows down at 93 °C, shuts down at 98 °C",
            "last XID none: the driver has reported no error",
        ):
            assert words in well
        assert "runs with 8 of 16 lanes. To do: copies to and from it" in told_of(own, browser, pcie_width=8)
        assert "PCIe runs at 3.0 under load, where 4.0 is possible. To do" in told_of(own, browser, pcie_generation=3)
        idle = told_of(own, browser, pcie_generation=1, utilization_gpu=0)
        assert "PCIe 1.0 x16 at low load, which saves power; 4.0 is possible" in idle
        ecc = told_of(own, browser, ecc_enabled=True, ecc_errors_corrected=9, ecc_errors_uncorrected=2)
        assert "ECC on; corrected ECC errors 9, uncorrected ECC errors 2. To do: its results may be wrong" in ecc
        rows = {"correctable": 1, "uncorrectable": 2, "pending": True, "failed": False}
        said = told_of(own, browser, remapped_rows=rows)
        assert "remapped rows 3, 2 of them for uncorrectable errors, and more are pending a reboot. To do" in said
        assert "replace the card" in told_of(own, browser, remapped_rows=rows | {"failed": True})
        pages = {"correctable": 4, "uncorrectable": 0, "pending": None}
        assert "retired pages 4 " in told_of(own, browser, remapped_rows=None, retired_pages=pages)
        assert "is 41 °C below its limit now" in told_of(own, browser, slowdown_c=None, shutdown_c=None, margin_c=41)
        xid = told_of(own, browser, xid={"code": 79, "at": "2026-01-02T03:04:05.678Z"})
        assert "last XID 79: the card has fallen off the bus" in xid
        assert "( 2026-01-02 03:04:05 UTC ). To do: reboot the machine" in xid


def test_programs_get_the_health_beside_the_readings(filled: Admin, browser: requests.Session) -> None:
    answer = browser.get(f"{filled.url}/api/v1/gpu", timeout=PATIENCE_S).json()
    assert [card["name"] for card in answer["gpus"]] == [past.CARD["name"], SECOND["name"]]
    assert answer["health"] == [past.HEALTH]


def test_health_that_is_not_known_is_said_to_be_so(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        unknown = told_of(own, browser, **dict.fromkeys(set(past.HEALTH) - {"index", "uuid", "name"}))
        for words in ("PCIe n/a", "ECC n/a", "remapped rows n/a", "temperature limits n/a", "last XID n/a"):
            assert words in unknown
        assert "0" not in unknown
        assert "To do" not in unknown


def test_odd_words_of_a_driver_are_words(data_dir: Path) -> None:
    odd = {**past.CARD, "name": "<script>alert(1)</script>\u202e\x1b[31m", "driver": "<b>", "throttle_reasons": ["<i>new</i>"]}
    with running(data_dir) as own:
        own.control.publish("poller", {"gpus": [odd, {}]})
        browser = own.log_in()
        for path in ("/", "/gpu"):
            page_ = browser.get(own.url + path, timeout=PATIENCE_S)
            assert page_.status_code == 200
            assert "<script>alert" not in page_.text
            assert "<i>new" not in page_.text
            assert not {"\x1b", "\u202e"} & set(page_.text)


def test_every_reason_of_nvml_has_its_words() -> None:
    assert set(page.REASONS) == set(THROTTLE_WORDS.values())


def test_a_process_is_named_where_it_can_be_seen() -> None:
    inference = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-m", "inference"])
    blender = subprocess.Popen(["/usr/bin/blender", "60"], executable="/bin/sleep")
    try:
        names = ["this worker's inference", "blender", "hidden (a host process ID)"]
        pids = (inference.pid, blender.pid, 2**22 + 1)
        until(lambda: [page.whose(pid) for pid in pids] == names)  # for a moment a new process has no command line
        assert memory_bytes(blender.pid)
        assert memory_bytes(None) is None
    finally:
        for process in (inference, blender):
            process.kill()
            process.wait()
    assert memory_bytes(blender.pid) is None
