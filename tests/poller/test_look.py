"""What the poller says of the cards: to the page all of it, to the orchestrator what the protocol names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from telemetry.card import IDENTITY, READINGS
from tests.fakes import nvml
from tests.fakes.orchestrator import FakeOrchestrator
from tests.patience import until
from tests.poller.house import House
from tests.poller.test_process import main_mode, poller


def said(house: House) -> dict[str, Any]:
    cards: list[dict[str, Any]] = house.control.published().get("poller", {}).get("gpu_health") or [{}]
    return cards[0]


@pytest.mark.skipif(nvml.compiler() is None, reason="needs a C compiler")
def test_the_drivers_last_report_is_kept_over_a_restart_and_is_not_on_the_wire(
    house: House, fake: FakeOrchestrator, tmp_path: Path
) -> None:
    state, library = tmp_path / "gpu", nvml.build(tmp_path)
    card = nvml.environment(library, state)
    nvml.write_state(state, {"pcie_width": 8})
    with poller(house, **main_mode(fake), **card):
        until(lambda: said(house).get("xid_watched"))
        nvml.write_state(state, {"pcie_width": 8, "xids": "63"})
        report = until(lambda: said(house).get("xid"))
    assert report["code"] == 63
    first = house.control.published()["poller"]["at"]
    with poller(house, **main_mode(fake), **card):
        until(lambda: house.control.published()["poller"]["at"] != first)
    assert (said(house)["xid"], said(house)["pcie_width"]) == (report, 8)
    beats = [beat.body["gpus"] for beat in fake.to("/heartbeat") if beat.body.get("gpus")]
    assert {frozenset(gpu) for gpus in beats for gpu in gpus} == {frozenset((*IDENTITY, *READINGS))}
