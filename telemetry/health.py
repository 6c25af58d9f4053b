"""A card's health in words: what its readings mean, and the remedy. Shared by the page and the doctor.

For people only: no job is refused because of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from telemetry.card import Gpu
from telemetry.xid import meaning

#: From this load (percent) a card has no reason to save power on its link.
BUSY_PERCENT = 50

_SEAT = "copies to and from it take longer: check the card's seating, its riser and the slot"
_WRONG = "its results may be wrong: reboot the machine, and replace the card if it happens again"
_SLOT = "check the riser, and the slot's speed in the BIOS"


@dataclass(frozen=True, kw_only=True)
class Trait:
    """One fact about a card. do: the remedy; "" if none is needed. bad: someone should look. at: when, UTC text."""

    name: str
    said: str
    do: str = ""
    bad: bool = False
    at: str | None = None


def traits(reading: Gpu, health: Gpu) -> list[Trait]:
    """The facts about a card, as far as known. reading: from `gpu.readings`; health: from `gpu.health`."""
    return [_link(reading, health), _ecc(reading, health), _memory(health), _limits(health), _report(health)]


def link(health: Gpu) -> str:
    """The card's current link, like "PCIe 4.0 x16"."""
    generation, width = health.get("pcie_generation"), health.get("pcie_width")
    return "PCIe n/a" if generation is None or width is None else f"PCIe {generation}.0 x{width}"


def _link(reading: Gpu, health: Gpu) -> Trait:
    generation, width = health.get("pcie_generation"), health.get("pcie_width")
    best, widest = health.get("pcie_generation_max"), health.get("pcie_width_max")
    if generation is None or width is None or best is None or widest is None:
        return Trait(name="link", said=f"{link(health)}; maximum n/a")
    busy = (reading.get("utilization_gpu") or 0) >= BUSY_PERCENT
    if width < widest:
        return Trait(name="link", said=f"PCIe runs with {width} of {widest} lanes", do=_SEAT, bad=True)
    if generation >= best:
        return Trait(name="link", said=f"{link(health)}: the maximum of card and slot")
    if not busy:
        return Trait(name="link", said=f"{link(health)} at low load, which saves power; {best}.0 is possible")
    return Trait(name="link", said=f"PCIe runs at {generation}.0 under load, where {best}.0 is possible", do=_SLOT, bad=True)


def _ecc(reading: Gpu, health: Gpu) -> Trait:
    """Errors since the driver was loaded."""
    state = {None: "ECC n/a", True: "ECC on", False: "ECC off"}[health.get("ecc_enabled")]
    corrected, uncorrected = health.get("ecc_errors_corrected"), reading.get("ecc_errors_uncorrected")
    said = f"{state}; corrected ECC errors {_number(corrected)}, uncorrected ECC errors {_number(uncorrected)}"
    return Trait(name="ECC", said=said, do=_WRONG if uncorrected else "", bad=bool(uncorrected))


def _memory(health: Gpu) -> Trait:
    """The defective memory that the card has retired: rows, or pages on older cards."""
    rows, pages = health.get("remapped_rows"), health.get("retired_pages")
    found = rows or pages
    if found is None:
        return Trait(name="memory", said="remapped rows n/a")
    said = f"{'remapped rows' if rows else 'retired pages'} {found['correctable'] + found['uncorrectable']}"
    if found["uncorrectable"]:
        said += f", {found['uncorrectable']} of them for uncorrectable errors"
    if found.get("failed"):
        do = "replace the card: it has no spare memory left to remap bad rows"
        return Trait(name="memory", said=f"{said}; some could not be remapped", do=do, bad=True)
    if found["pending"]:
        do = "reboot the machine when convenient, to retire the bad memory"
        return Trait(name="memory", said=f"{said}, and more are pending a reboot", do=do, bad=True)
    return Trait(name="memory", said=said)


def _limits(health: Gpu) -> Trait:
    slowdown, shutdown, margin = health.get("slowdown_c"), health.get("shutdown_c"), health.get("margin_c")
    said = [f"slows down at {slowdown} °C"] if slowdown is not None else []
    said += [f"shuts down at {shutdown} °C"] if shutdown is not None else []
    said += [f"is {margin} °C below its limit now"] if margin is not None and not said else []
    return Trait(name="limits", said=", ".join(said) or "temperature limits n/a")


def _report(health: Gpu) -> Trait:
    report = health.get("xid")
    if report is None:
        none = "last XID none: the driver has reported no error" if health.get("xid_watched") else "last XID n/a"
        return Trait(name="XID", said=none)
    told = meaning(report["code"])
    return Trait(name="XID", said=f"last XID {report['code']}: {told.said}", do=told.do, bad=not told.harmless, at=report["at"])


def _number(count: Any) -> str:
    return "n/a" if count is None else str(count)
