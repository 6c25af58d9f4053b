"""What a real card says of itself: whatever it is, the readings must make sense together. Without a card this skips."""

from __future__ import annotations

import pytest

from telemetry import gpu
from telemetry.card import GAUGES, HEALTH, IDENTITY, READINGS
from telemetry.health import traits


def test_a_real_card_says_what_it_does_and_how_it_is() -> None:
    cards, well, seconds = gpu.readings(), gpu.health(), gpu.gauges()
    if not cards:
        pytest.skip("no NVIDIA driver, or no card")
    for card, health, gauges in zip(cards, well, seconds, strict=True):
        assert {*IDENTITY, *READINGS} == set(card)
        assert {*IDENTITY, *HEALTH, "xid", "xid_watched"} == set(health)
        assert {*IDENTITY, *GAUGES} == set(gauges)
        assert card["uuid"] == health["uuid"] == gauges["uuid"]
        assert 0 <= card["memory_used_mib"] <= card["memory_total_mib"]
        for least, most in (("pcie_width", "pcie_width_max"), ("pcie_generation", "pcie_generation_max")):
            assert None in (health[least], health[most]) or 1 <= health[least] <= health[most]
        assert None in (health["slowdown_c"], health["shutdown_c"]) or 50 < health["slowdown_c"] <= health["shutdown_c"] < 130
        assert gauges["memory_temperature_c"] is None or 5 < gauges["memory_temperature_c"] < 130
        assert health["remapped_rows"] is None or health["retired_pages"] is None
        assert len(traits(card, health)) == 5
