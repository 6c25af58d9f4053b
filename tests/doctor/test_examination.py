"""An examination names the fault before an operator has to look for it, and says what to do; nothing can hold it up."""

from __future__ import annotations

import json
import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

import settings
from doctor.examination import within
from doctor.finding import Finding, Situation
from operations import Operator
from tests.cli.conftest import Run
from tests.fakes import nvml
from tests.fakes.file_server import FileServer, Handler, status
from weights import manifest

#: A data folder may be as full as the disk of whoever runs the tests.
SMALL = {"DATA_LIMIT_GB": "0.1"}


def findings(worker: Run, code: int = 0, /, **variables: str) -> dict[str, dict[str, Any]]:
    done = worker("doctor", "--json", **SMALL, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    data = json.loads(done.stdout)
    assert data["ok"] is (code == 0)
    return {found["name"]: found for found in data["checks"]}


def test_a_gpu_engine_without_card_and_weights_fails_and_says_what_to_do(worker: Run) -> None:
    found = findings(worker, 1, ENGINE="fastwan")
    assert (found["GPU"]["level"], found["GPU"]["said"]) == ("fail", "no NVIDIA GPU is visible")
    assert "--gpus all" in found["GPU"]["do"]
    assert found["torch"]["level"] == "fail"  # not here, or built for processors
    assert found["weights"]["said"].startswith("15 files that fastwan needs are missing or wrong")
    assert found["weights"]["do"] == "worker models pull fastwan"
    assert len(found["weights"]["lines"]) == 6


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if nvml.compiler() is None:
        pytest.skip("needs a C compiler")
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def with_card(library: Path, tmp_path: Path, **state: object) -> dict[str, str]:
    nvml.write_state(tmp_path / "gpu", {"name": "A card", **state})
    return nvml.environment(library, tmp_path / "gpu")


@pytest.mark.parametrize(
    ("total_mib", "used_mib", "plan", "level"),
    [
        (24_564, 300, "lean", "ok"),
        (32_607, 300, "steady", "ok"),
        (81_559, 600, "whole", "ok"),
        (81_559, 64_000, "streamed", "ok"),
        (11_500, 300, "tiled", "warn"),
        (8_192, 6_000, "tiled", "fail"),
    ],
)
def test_fastwans_plan_is_chosen_from_the_memory_that_is_free(
    worker: Run, library: Path, tmp_path: Path, total_mib: int, used_mib: int, plan: str, level: str
) -> None:
    card = with_card(library, tmp_path, memory_total_mib=total_mib, memory_used_mib=used_mib)
    found = findings(worker, 1, ENGINE="fastwan", **card)
    assert found["GPU 0"]["said"].startswith("A card, driver ")
    assert (found["plan"]["details"]["plan"]["name"], found["plan"]["level"]) == (plan, level)
    assert [line.split(":")[0].strip() for line in found["plan"]["lines"]] == [
        f"{size} GB card" for size in (12, 16, 24, 32, 80)
    ]
    assert bool(found["plan"]["do"]) is (level != "ok")


def test_what_is_not_exact_is_said_with_the_plan_and_its_file_is_looked_for(worker: Run, library: Path, tmp_path: Path) -> None:
    card = with_card(library, tmp_path, memory_total_mib=12_288, memory_used_mib=300)
    choices = {"FASTWAN_LINEARS": "fp8", "FASTWAN_DECODER": "tiny"}
    found = findings(worker, 1, ENGINE="fastwan", **choices, **card)
    assert "lean, 9.4 GB (transformer resident" in found["plan"]["said"]
    assert "fp8, tiny decoder" in found["plan"]["said"]
    assert found["weights"]["said"].startswith("16 files that fastwan needs")


def test_a_card_that_is_lost_or_wrong_is_said(worker: Run, library: Path, tmp_path: Path) -> None:
    card = with_card(library, tmp_path, ecc_errors_uncorrected=3, memory_used_mib=9000, processes="41:8600")
    found = findings(worker, 1, **card)
    assert (found["GPU 0"]["level"], "3 uncorrected ECC errors" in found["GPU 0"]["said"]) == ("warn", True)
    card = with_card(library, tmp_path, memory_used_mib=9000, processes="41:8600")
    assert findings(worker, 1, **card)["GPU 0"]["do"] == "stop other programs on the card (process 41: 8600 MiB)"
    card = with_card(library, tmp_path, error=nvml.GPU_IS_LOST)
    assert findings(worker, 1, ENGINE="preview", **card)["GPU 0"]["do"] == "reset the card, or reboot the machine"


def test_a_card_that_works_but_is_not_well_is_warned_about(worker: Run, library: Path, tmp_path: Path) -> None:
    card = with_card(library, tmp_path, pcie_width=4, remapped="0,2,1,0")
    done = worker("doctor", "--json", ENGINE="preview", **SMALL, **card)
    found = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "GPU 0"]
    assert [(one["level"], one["said"]) for one in found[1:]] == [
        ("warn", "PCIe runs with 4 of 16 lanes"),
        ("warn", "remapped rows 2, 2 of them for uncorrectable errors, and more are pending a reboot"),
    ]
    assert all(one["do"] for one in found[1:])
    well = with_card(library, tmp_path, pcie_generation=1)
    assert worker("doctor", ENGINE="preview", **SMALL, **well).stdout.count(" GPU 0 ") == 1


@pytest.mark.parametrize(("code", "level"), [(79, "warn"), (13, "ok")])
def test_what_the_driver_reported_is_said_for_a_day(worker: Run, operator: Operator, code: int, level: str) -> None:
    for days, said in ((0, [level]), (2, [])):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        operator.control.publish("poller", {"gpu_health": [{"index": 0, "xid": {"code": code, "at": at}}, {"index": 1}]})
        checks = json.loads(worker("doctor", "--json", ENGINE="preview", **SMALL).stdout)["checks"]
        assert [check["level"] for check in checks if check["said"].startswith(f"XID {code} at {at}: ")] == said


def test_weights_that_are_there_by_size_are_not_read(worker: Run, folder: Path) -> None:
    for file in manifest.FASTWAN:
        path = folder / "models" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as hole:
            hole.truncate(file.size_bytes or 0)
    assert findings(worker, 1, ENGINE="fastwan")["weights"]["level"] == "ok"
    os.truncate(folder / "models" / manifest.FASTWAN[2].path, 7)
    found = findings(worker, 1, ENGINE="fastwan")["weights"]
    assert found["lines"] == [f"{manifest.FASTWAN[2].path} has 7 bytes, expected 9,999,660,080"]


def test_weights_that_an_older_variable_names_are_looked_for_there(worker: Run, folder: Path) -> None:
    unet = folder / "elsewhere" / "unet.pth"
    for file in manifest.MUSETALK:
        path = folder / "models" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name != "musetalkV15":
            with path.open("wb") as hole:
                hole.truncate(file.size_bytes or 0)
    found = findings(worker, 1, ENGINE="musetalk", MUSETALK_UNET_MODEL_PATH=str(unet))["weights"]
    assert [line.split(" ")[0] for line in found["lines"]] == ["musetalkV15/musetalk.json", str(unet)]
    unet.parent.mkdir()
    for name in ("unet.pth", "config.json"):
        (unet.parent / name).write_text("{}")
    assert findings(worker, 1, ENGINE="musetalk", MUSETALK_UNET_MODEL_PATH=str(unet))["weights"]["level"] == "ok"


@pytest.mark.parametrize("engine", ["preview", "musetalk"])
def test_a_queue_that_is_sound_is_said_to_be_with_what_is_put_up_in_it(worker: Run, operator: Operator, engine: str) -> None:
    operator.pause("a new card comes")
    found = findings(worker, 1 if engine == "musetalk" else 0, ENGINE=engine)
    assert found["queue"]["level"] == "ok"
    assert (found["paused"]["level"], found["paused"]["do"]) == ("warn", "worker resume")
    assert found["paused"]["said"].endswith("by test: a new card comes")


def test_a_queue_that_is_damaged_fails(worker: Run, operator: Operator, folder: Path) -> None:
    path = folder / "data" / "jobs.db"
    operator.queue.database.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(8192))
    assert findings(worker, 1, ENGINE="preview")["queue"]["level"] == "fail"
    path.write_bytes(b"no database at all" * 1000)
    assert findings(worker, 1, ENGINE="preview")["queue"]["level"] == "fail"


def test_a_port_in_use_and_a_folder_that_cannot_be_written_fail(worker: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = findings(worker, 1, ENGINE="preview", HTTP_PORT=port, DATA_DIR="/proc/nowhere")
    assert found["ports"]["said"].startswith(f"HTTP_PORT={port}: is in use")
    assert (found["disk"]["level"], found["disk"]["said"][:14]) == ("fail", "DATA_DIR=/proc")


def test_a_disk_with_less_room_than_the_worker_may_fill_is_warned_about(worker: Run) -> None:
    done = worker("doctor", "--json", ENGINE="preview", DATA_LIMIT_GB="100000000")
    disk = next(found for found in json.loads(done.stdout)["checks"] if found["name"] == "disk")
    assert (disk["level"], disk["do"].split(" is more")[0]) == ("warn", "DATA_LIMIT_GB=1e+08")


# ---- the outside -----------------------------------------------------------------------------------------------------------

REAL = {"ENGINE": "preview", "WORKER_MODE": "main", "INTERNAL_API_KEY": "a-long-enough-key"}


def dated(days: float) -> Any:
    """Answers 404 with a clock that is so many days wrong."""

    def answer(handler: Handler) -> None:
        handler.send_response_only(404)
        handler.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(days=days), usegmt=True))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_an_orchestrator_that_answers_anything_is_reached_without_key_or_claim(worker: Run) -> None:
    with FileServer([dated(0)]) as server:
        found = findings(worker, 0, **REAL, ORCHESTRATOR_BASE_URL=server.url(""))
    assert found["orchestrator"]["level"] == "ok"
    assert " answers 404 in " in found["orchestrator"]["said"]
    assert found["clock"]["level"] == "ok"
    assert (found["store"]["level"], found["store"]["do"].startswith("set B2_KEY_ID")) == ("warn", True)
    assert [seen.path for seen in server.seen] == ["/"]
    assert "X-Internal-API-Key" not in server.seen[0].headers


def test_a_clock_that_is_wrong_is_warned_about(worker: Run) -> None:
    with FileServer([dated(1)]) as server:
        found = findings(worker, 0, **REAL, ORCHESTRATOR_BASE_URL=server.url(""))
    assert (found["clock"]["level"], found["clock"]["do"]) == ("warn", "synchronize the clocks (NTP)")
    assert "behind the orchestrator's" in found["clock"]["said"]


def test_an_orchestrator_that_cannot_be_reached_is_said_with_the_reason(worker: Run) -> None:
    with FileServer([status(200)]) as server:
        port = server.url("").rsplit(":", 1)[1]
        found = findings(worker, 1, **REAL, ORCHESTRATOR_BASE_URL=f"https://127.0.0.1:{port}")
        assert "TLS failed" in found["orchestrator"]["said"]
    found = findings(worker, 1, **REAL, ORCHESTRATOR_BASE_URL=f"http://127.0.0.1:{port}")
    assert "no connection" in found["orchestrator"]["said"]
    found = findings(worker, 1, **REAL, ORCHESTRATOR_BASE_URL="https://nobody.invalid")
    assert found["orchestrator"]["level"] == "fail"


def test_b2_is_named_without_its_secrets(worker: Run) -> None:
    keys = {"B2_KEY_ID": "key-id-0001", "B2_APP_KEY": "app-key-secret", "B2_BUCKET_NAME": "videos"}
    done = worker("doctor", ENGINE="preview", **SMALL, **keys)
    assert "B2 bucket videos, under avatar/outputs; the keys are set" in done.stdout
    assert "key-id-0001" not in done.stdout
    assert "app-key-secret" not in done.stdout


# ---- time ------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_check_that_hangs_or_breaks_is_a_finding_and_holds_up_no_other() -> None:
    now, end = Situation(settings=settings.load({"ENGINE": "preview"}), cards=[], programs=None), threading.Event()

    def hang(now: Situation) -> list[Finding]:
        end.wait()
        return []

    def well(now: Situation) -> list[Finding]:
        return [Finding(name="disk", level="ok", said="is well")]

    def silent(now: Situation) -> list[Finding]:
        return []

    def broken(now: Situation) -> list[Finding]:
        raise ZeroDivisionError

    found = within(0.3, {"weights": hang, "disk": well, "plan": silent, "queue": broken}, now)
    end.set()
    assert [(one.name, one.level, one.said) for one in found] == [
        ("weights", "fail", "no answer within 0.3 s"),
        ("disk", "ok", "is well"),
        ("queue", "fail", "the check itself crashed"),
    ]
