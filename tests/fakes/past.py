"""A past for made-up cards: the samples that the poller would have kept, for tests and benchmarks of the page."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from jobqueue.samples import COARSE_S, COLUMNS, FINE_S, Writing

#: A card as the poller tells of it, at work.
CARD: dict[str, Any] = {
    "index": 0,
    "uuid": "GPU-6f1c0a52-aaaa-bbbb-cccc-000000000000",
    "name": "NVIDIA GeForce RTX 3090",
    "driver": "580.159.03",
    "cuda": "13.0",
    "utilization_gpu": 92,
    "utilization_memory": 41,
    "memory_total_mib": 24576,
    "memory_used_mib": 11468,
    "temperature_c": 71,
    "power_w": 244.3,
    "power_limit_w": 350.0,
    "clock_sm_mhz": 1695,
    "clock_memory_mhz": 9501,
    "fan_percent": 54,
    "throttle_reasons": ["power cap"],
    "ecc_errors_uncorrected": None,
    "processes": [{"pid": 999_999_999, "memory_used_mib": 10900}],
}

#: How that card is, as the poller tells of it.
HEALTH: dict[str, Any] = {
    "index": 0,
    "uuid": CARD["uuid"],
    "name": CARD["name"],
    "driver": "580.159.03",
    "cuda": "13.0",
    "persistence": True,
    "pcie_generation": 4,
    "pcie_width": 16,
    "pcie_generation_max": 4,
    "pcie_width_max": 16,
    "ecc_enabled": None,
    "ecc_errors_corrected": None,
    "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": False, "failed": False},
    "retired_pages": None,
    "slowdown_c": 93,
    "shutdown_c": 98,
    "margin_c": None,
    "xid": None,
    "xid_watched": True,
}


def row(card: dict[str, Any], n: int) -> list[Any]:
    """What a card did in the n-th second: jobs of two minutes with pauses, a little noise."""
    busy = 1.0 if n % 150 < 120 else 0.05
    wave = math.sin(n / 7) * 4
    wanted = {
        "load": 92 * busy + wave * busy,
        "memory_load": 40 * busy,
        "encoder": 22 * busy + wave / 2 * busy,
        "decoder": 4 * busy,
        "memory_used_mib": 2000 + 9468 * busy,
        "memory_total_mib": card.get("memory_total_mib"),
        "temperature_c": 55 + 16 * busy + wave / 2,
        "memory_temperature_c": 68 + 20 * busy + wave / 2,
        "power_w": 60 + 184 * busy + wave,
        "power_limit_w": card.get("power_limit_w"),
        "clock_sm_mhz": 300 + 1395 * busy,
        "clock_memory_mhz": 9501 if busy == 1 else 405,
    }
    return [None if name in card.get("lacks", ()) else wanted[name] for name in COLUMNS]


def fill(path: Path, cards: list[dict[str, Any]], fine_s: int = 1200, coarse_s: int = 24 * 3600) -> None:
    """A day of these cards, up to now."""
    writing, now = Writing(path), int(time.time())
    rows, held = [], []
    for card in cards:
        for step, span in ((FINE_S, fine_s), (COARSE_S, coarse_s)):
            for at in range((now - span) // step * step, now - step + 1, step):
                rows.append([step, at, card["uuid"], *row(card, at)])
                if at % 7 == 0:
                    held.append([step, at, card["uuid"], "power cap", float(step)])
    marks = ", ".join("?" * (3 + len(COLUMNS)))

    def statements(connection: Any) -> None:
        connection.executemany(f"insert or replace into sample values ({marks})", rows)
        connection.executemany("insert or replace into held values (?, ?, ?, ?, ?)", held)

    writing._database.write(statements, durable=False)
    writing.close()
