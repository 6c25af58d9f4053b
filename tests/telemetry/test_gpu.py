"""`telemetry.gpu` against a made-up driver library, in a process of its own, as the worker's programs run it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from settings import child_environment
from telemetry import card as asked
from telemetry import gpu, xid
from tests.fakes import nvml
from tests.patience import until

#: Answers each line of its input (the arguments of `readings` as JSON) with a line of readings.
CHILD = """
import json, sys
from telemetry import gpu
assert "pynvml" not in sys.modules
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(getattr(gpu, asked.pop("function", "readings"))(**asked)), flush=True)
"""


class Machine:
    """A process that reads the GPUs, and the state of those GPUs."""

    def __init__(self, environment: dict[str, str], state: Path) -> None:
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=child_environment(**environment),
        )  # fmt: skip

    def set(self, values: Mapping[str, object]) -> None:
        nvml.write_state(self.state, values)

    def read(self, **arguments: Any) -> list[dict[str, Any]]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if nvml.compiler() is None:
        pytest.skip("needs a C compiler")
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Iterator[Machine]:
    state = tmp_path / "gpu"
    nvml.write_state(state, {})
    machine = Machine(nvml.environment(library, state), state)
    yield machine
    machine.process.kill()
    machine.process.communicate()


def test_a_card_is_read_in_the_units_of_the_protocol(machine: Machine) -> None:
    machine.set({"0.name": "NVIDIA L4", "utilization_gpu": 88, "utilization_memory": 12, "memory_used_mib": 9000, "cuda": 12040,
                 "power_mw": 71234, "power_limit_mw": 72000, "clock_sm_mhz": 2040, "clock_memory_mhz": 6251, "fan_percent": 30,
                 "pcie_tx_kbps": 5, "pcie_rx_kbps": 7, "throttle": "0x64", "ecc_errors_uncorrected": 2,
                 "processes": "41:8600,42:-"})  # fmt: skip
    assert machine.read() == [{
        "index": 0, "uuid": "GPU-00000000-aaaa-bbbb-cccc-000000000000", "name": "NVIDIA L4", "driver": "580.159.03",
        "cuda": "12.4", "utilization_gpu": 88, "utilization_memory": 12, "memory_total_mib": 12288, "memory_used_mib": 9000,
        "temperature_c": 41, "power_w": 71.2, "power_limit_w": 72.0, "clock_sm_mhz": 2040, "clock_memory_mhz": 6251,
        "fan_percent": 30, "pcie_tx_kbps": 5, "pcie_rx_kbps": 7,
        "throttle_reasons": ["power cap", "software heat limit", "hardware heat limit"], "ecc_errors_uncorrected": 2,
        "processes": [{"pid": 41, "memory_used_mib": 8600}, {"pid": 42, "memory_used_mib": None}],
    }]  # fmt: skip


def test_what_a_card_does_not_offer_is_none_and_not_zero(machine: Machine) -> None:
    functions = ["FanSpeed", "TotalEccErrors", "UtilizationRates", "PowerUsage", "PcieThroughput", "Temperature", "ClockInfo"]
    functions += ["MemoryInfo", "MemoryInfo_v2", "ComputeRunningProcesses_v3", "GraphicsRunningProcesses_v3"]
    functions += ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons", "EnforcedPowerLimit", "PowerManagementLimit"]
    machine.set({"unsupported": ",".join("nvmlDeviceGet" + name for name in functions)})
    (card,) = machine.read()
    assert card.pop("name") == "NVIDIA GeForce RTX 3060"
    assert {key for key, value in card.items() if value is not None} == {"index", "uuid", "driver", "cuda"}


def test_an_older_driver_is_asked_in_the_older_way(machine: Machine) -> None:
    newer = ("MemoryInfo_v2", "CurrentClocksEventReasons", "EnforcedPowerLimit")
    machine.set({"unsupported": ",".join("nvmlDeviceGet" + name for name in newer), "memory_used_mib": 1000, "throttle": 1})
    (card,) = machine.read()
    assert (card["memory_used_mib"], card["throttle_reasons"], card["power_limit_w"]) == (1300, ["idle"], 170.0)


def test_the_gauges_of_every_second_are_the_same_readings_and_the_video_engines_load(machine: Machine) -> None:
    machine.set({"count": 2, "utilization_gpu": 88, "utilization_encoder": 31, "utilization_decoder": 7, "1.throttle": 4,
                 "0.memory_temperature_c": 84,
                 "1.unsupported": "nvmlDeviceGetEncoderUtilization,nvmlDeviceGetTemperature"})  # fmt: skip
    first, second = machine.read(function="gauges")
    whole = machine.read()[0]
    assert {key: first[key] for key in first if key in whole} == {key: whole[key] for key in whole if key in first}
    assert set(first) == {*asked.IDENTITY, *asked.GAUGES}
    assert (first["utilization_encoder"], first["utilization_decoder"]) == (31, 7)
    assert (first["memory_temperature_c"], second["memory_temperature_c"]) == (84, None)
    assert (second["utilization_encoder"], second["temperature_c"], second["throttle_reasons"]) == (None, None, ["power cap"])
    machine.set({"error": nvml.GPU_IS_LOST})
    assert set(machine.read(function="gauges")[0]) == {*asked.IDENTITY, *asked.GAUGES}


def test_a_change_is_seen_at_the_next_look(machine: Machine) -> None:
    assert machine.read()[0]["temperature_c"] == 41
    machine.set({"temperature_c": 83})
    assert machine.read()[0]["temperature_c"] == 83


@pytest.mark.parametrize(
    ("only", "indexes"), [("all", [0, 1, 2]), ("1", [1]), ("0,2", [0, 2]), ("GPU-00000002", [2]), ("7", [])]
)
def test_only_the_wanted_cards_are_read(machine: Machine, only: str, indexes: list[int]) -> None:
    machine.set({"count": 3})
    assert [card["index"] for card in machine.read(only=only)] == indexes


def test_a_lost_card_keeps_its_name_and_has_no_readings(machine: Machine) -> None:
    machine.set({"count": 2, "1.name": "NVIDIA L4"})
    before = machine.read()[1]
    machine.set({"count": 2, "1.error": nvml.GPU_IS_LOST})
    first, second = machine.read()
    assert first["temperature_c"] == 41
    assert "lost" not in first
    assert second == dict.fromkeys(before) | {key: before[key] for key in ("index", "uuid", "name", "driver", "cuda")} | {
        "lost": True
    }


def test_a_card_that_is_no_longer_listed_is_lost(machine: Machine) -> None:
    machine.set({"count": 2})
    machine.read()
    machine.set({"count": 1})
    assert [(card["index"], card.get("lost")) for card in machine.read()] == [(0, None), (1, True)]


def test_a_lost_card_that_comes_back_is_read_again(machine: Machine) -> None:
    machine.read()
    machine.set({"error": nvml.GPU_IS_LOST})
    assert machine.read()[0]["lost"]
    machine.set({})
    assert machine.read()[0]["temperature_c"] == 41


def test_without_a_driver_there_is_no_card_until_there_is_one(machine: Machine) -> None:
    machine.set({"init_error": nvml.DRIVER_NOT_LOADED})
    assert machine.read() == []
    machine.set({})
    assert len(machine.read()) == 1


def test_a_driver_that_hangs_costs_the_caller_a_moment_and_keeps_the_name(machine: Machine) -> None:
    machine.read()
    machine.set({"delay_ms": 60_000})
    for _ in range(2):
        (card,) = machine.read(timeout_s=0.3)
        assert card["name"] == "NVIDIA GeForce RTX 3060"
        assert card["temperature_c"] is None


def test_a_driver_that_hangs_for_days_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    over = threading.Event()
    monkeypatch.setattr(gpu, "_cards", lambda only, values: [] * over.wait(20))
    for _ in range(5):
        gpu.gauges(timeout_s=0.05)
    over.set()
    until(lambda: "answers again" in caplog.text or gpu.gauges(timeout_s=1))
    assert [record.message.split(" within")[0] for record in caplog.records] == [
        "the GPU driver did not answer",
        "the GPU driver answers again",
    ]


def test_without_the_library_there_is_no_card(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    machine = Machine({}, tmp_path / "gpu")
    assert machine.read() == []
    machine.process.communicate("")


# ---- health ----------------------------------------------------------------------------------------------------------------

NOT_IN_HEALTH = (*asked.IDENTITY, "xid", "xid_watched")


def test_the_health_of_a_card_is_told_in_words_and_numbers(machine: Machine) -> None:
    machine.set({"pcie_generation": 1, "pcie_width": 8, "persistence": 0, "ecc_errors_uncorrected": 3, "remapped": "2,1,1,0"})
    (card,) = machine.read(function="health")
    assert {key: value for key, value in card.items() if key not in NOT_IN_HEALTH} == {
        "persistence": False, "pcie_generation": 1, "pcie_width": 8, "pcie_generation_max": 4, "pcie_width_max": 16,
        "ecc_enabled": True, "ecc_errors_corrected": 3,
        "remapped_rows": {"correctable": 2, "uncorrectable": 1, "pending": True, "failed": False}, "retired_pages": None,
        "slowdown_c": 93, "shutdown_c": 98, "margin_c": 52,
    }  # fmt: skip
    assert (card["xid"], card["xid_watched"]) == (None, True)


def test_an_older_card_tells_of_pages_instead_of_rows(machine: Machine) -> None:
    machine.set({"retired": "3,1,1"})
    (card,) = machine.read(function="health")
    assert card["remapped_rows"] is None
    assert card["retired_pages"] == {"correctable": 3, "uncorrectable": 1, "pending": True}
    machine.set({"retired": "0,0,0", "unsupported": "nvmlDeviceGetRetiredPagesPendingStatus"})
    assert machine.read(function="health")[0]["retired_pages"] == {"correctable": 0, "uncorrectable": 0, "pending": None}


def test_health_that_a_card_does_not_offer_is_none_and_not_zero(machine: Machine) -> None:
    functions = ["PersistenceMode", "CurrPcieLinkGeneration", "CurrPcieLinkWidth", "MaxPcieLinkGeneration", "EccMode"]
    functions += ["MaxPcieLinkWidth", "TotalEccErrors", "RemappedRows", "RetiredPages", "TemperatureThreshold"]
    functions += ["MarginTemperature", "FieldValues"]
    refused = ",".join(["nvmlDeviceRegisterEvents", *("nvmlDeviceGet" + name for name in functions)])
    machine.set({"unsupported": refused})
    (card,) = machine.read(function="health")
    assert {key for key, value in card.items() if value is not None} == {*asked.IDENTITY, "xid_watched"}
    assert card["xid_watched"] is False


def test_a_lost_card_has_no_health_but_its_last_report(machine: Machine) -> None:
    machine.set({"count": 2})
    machine.read(function="health")
    machine.set({"count": 2, "1.xids": "79", "1.error": nvml.GPU_IS_LOST})
    assert [card.get("lost") for card in machine.read()] == [None, True]  # it is asked first by whoever is at it
    first, second = machine.read(function="health")
    assert (first["xid"], first["pcie_width"], second["pcie_width"], second["xid"]["code"]) == (None, 16, None, 79)
    assert set(second) == set(first) == {*asked.IDENTITY, *asked.HEALTH, "xid", "xid_watched"}


def test_only_the_newest_report_is_kept_and_none_from_before_the_first_look(machine: Machine) -> None:
    machine.set({"xids": "13"})
    assert machine.read(function="health")[0]["xid"] is None
    machine.set({"xids": "13,43,31"})
    machine.read(function="gauges")
    report = machine.read(function="health")[0]["xid"]
    assert report["code"] == 31
    assert report["at"].endswith("Z")
    assert machine.read(function="health")[0]["xid"] == report


@pytest.mark.parametrize("state", [{"events": 0}, {"unsupported": "nvmlDeviceGetSupportedEventTypes"}])
def test_a_driver_without_events_is_not_said_to_have_reported_nothing(machine: Machine, state: dict[str, object]) -> None:
    machine.set(state)
    machine.read()
    machine.set({**state, "xids": "79"})
    machine.read()
    (card,) = machine.read(function="health")
    assert (card["xid"], card["xid_watched"]) == (None, False)


def test_a_card_that_was_reset_is_watched_again(machine: Machine) -> None:
    machine.read()
    machine.set({"error": nvml.GPU_IS_LOST})
    machine.read()
    machine.set({})
    assert machine.read(function="health")[0]["xid_watched"]
    machine.set({"xids": "45"})
    assert machine.read(function="health")[0]["xid"]["code"] == 45


def test_every_report_has_words_also_an_unknown_one() -> None:
    known = (13, 31, 43, 45, 48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120)
    assert set(known) <= set(xid.MEANINGS)
    for code in (*xid.MEANINGS, 9999):
        said = xid.meaning(code)
        assert said.said
        assert said.do
    assert [code for code in known if xid.meaning(code).harmless] == [13, 31, 43, 45]
