"""The GPU checks of `worker doctor`: presence, health, driver version, free memory, and the processes that use it.

Uses NVML only: it starts nothing on the card, and never imports torch.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import asdict
from typing import Any

from doctor.finding import Finding, Level, Situation
from telemetry import host
from telemetry.health import traits
from weights import plans
from weights.plans import Plan

#: Card sizes in the table, in GB as advertised.
CARDS_GB = (12, 16, 24, 32, 80)
#: What the driver and a display use of a card before anything is loaded.
TAKEN_BYTES = 512 * 2**20
#: With less free memory than this, hardly any engine fits on a card.
SCARCE_BYTES = 6 * 10**9

NO_CARD = "check the driver with nvidia-smi on the host; containers need --gpus all and the NVIDIA Container Toolkit"


def card(now: Situation) -> list[Finding]:
    """A finding per card, or one that says that there is none."""
    if not now.cards:
        if now.needs_card:
            return [Finding(name="GPU", level="fail", said="no NVIDIA GPU is visible", do=NO_CARD)]
        return [Finding(name="GPU", level="ok", said=f"none is visible; ENGINE={now.settings.ENGINE} may not need one")]
    return [finding for found in now.cards for finding in (_card(now, found), *_traits(now, found))]


def _traits(now: Situation, found: dict[str, Any]) -> list[Finding]:
    """Problems of a card that otherwise works. (Uncorrected errors are in the card's own finding.)"""
    health = next((one for one in now.health if one["index"] == found["index"]), {})
    bad = [trait for trait in traits(found, health) if trait.bad and trait.name != "ECC"]
    return [Finding(name=f"GPU {found['index']}", level="warn", said=trait.said, do=trait.do) for trait in bad]


def _card(now: Situation, found: dict[str, Any]) -> Finding:
    name = f"GPU {found['index']}"
    title = f"{found['name']}, driver {found['driver']}, CUDA {found['cuda']}"
    if found.get("lost"):
        return Finding(name=name, level="fail", said=f"{title}: is lost", do="reset the card, or reboot the machine")
    if found["memory_total_mib"] is None:
        do = "check nvidia-smi and dmesg on the host; a hung driver requires a reboot"
        return Finding(name=name, level="fail", said=f"{title}: the driver does not answer", do=do)
    free, total = free_bytes(found), found["memory_total_mib"] * 2**20
    said = f"{title}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if found["ecc_errors_uncorrected"]:
        do = "its results may be wrong: reboot, and replace the card if it happens again"
        return Finding(name=name, level="warn", said=f"{said}, {found['ecc_errors_uncorrected']} uncorrected ECC errors", do=do)
    if now.needs_card and free < SCARCE_BYTES and not now.programs:
        return Finding(name=name, level="warn", said=said, do=f"stop other programs on the card ({_users(found)})")
    return Finding(name=name, level="ok", said=said, details={"free_bytes": free})


def free_bytes(found: dict[str, Any]) -> int:
    """Free memory of a card; everything but the driver's share if usage is not reported."""
    return int(found["memory_total_mib"] - (found["memory_used_mib"] or 0)) * 2**20


def _users(found: dict[str, Any]) -> str:
    processes = [f"process {each['pid']}: {each['memory_used_mib']} MiB" for each in found["processes"] or ()]
    return ", ".join(processes) or "see nvidia-smi"


# ---- torch -----------------------------------------------------------------------------------------------------------------


def packages(now: Situation) -> list[Finding]:
    """Whether torch and the other packages of the engine are installed, and built for this driver."""
    if not now.needs_card:
        return []
    missing = [name for name in ("torch", "diffusers", "transformers", "safetensors") if host.installed(name) is None]
    if missing:
        do = "run worker setup --engine; for an image, build with --build-arg TORCH=1"
        return [Finding(name="torch", level="fail", said=f"not installed: {', '.join(missing)}", do=do)]
    version = host.installed("torch") or ""
    made_for, offered = _cuda_of_torch(version), next((each["cuda"] for each in now.cards if each.get("cuda")), None)
    if version.endswith("+cpu"):
        do = "install the CUDA build from the package index given on the torch site"
        return [Finding(name="torch", level="fail", said=f"{version} is built for CPUs only", do=do)]
    if made_for and offered and int(offered.split(".")[0]) < made_for:
        said = f"{version} is built for CUDA {made_for}; the driver supports {offered}"
        return [Finding(name="torch", level="fail", said=said, do="install a newer driver on the host, or an older torch")]
    return [Finding(name="torch", level="ok", said=version + (f", for CUDA {made_for}" if made_for else ""))]


def _cuda_of_torch(version: str) -> int | None:
    """The major CUDA version that torch was built for, from its own version or those of the libraries it requires."""
    local = re.search(r"\+cu(\d\d)", version)
    asked = [re.match(r"nvidia-[\w-]+-cu(\d\d)\b", line) for line in importlib.metadata.requires("torch") or ()]
    found = [match for match in (local, *asked) if match]
    return int(found[0][1]) if found else None


# ---- FastWan's plan --------------------------------------------------------------------------------------------------------


def plan(now: Situation) -> list[Finding]:
    """FastWan's plan for this card, and for common card sizes."""
    if now.settings.ENGINE != "fastwan":
        return []
    offered = plans.offered(now.settings.FASTWAN_LINEARS, now.settings.FASTWAN_DECODER)
    table = tuple(_row(f"{size:>3} GB card", plans.choose(size * 2**30 - TAKEN_BYTES, offered)) for size in CARDS_GB)
    measured = next((each for each in now.cards if each.get("memory_total_mib")), None)
    if measured is None:
        return [Finding(name="plan", level="ok", said="no card to measure; plans by card size:", lines=table)]
    running = now.programs is not None  # then the worker already has the card's memory
    free = measured["memory_total_mib"] * 2**20 - TAKEN_BYTES if running else free_bytes(measured)
    chosen = plans.choose(free, offered)
    details = {"plan": asdict(chosen), "needed_bytes": plans.needed_bytes(chosen), "free_bytes": free}
    said = _row(f"{free / 1e9:.1f} GB " + ("on the card" if running else "free"), chosen)
    level, do = _fit(chosen, free)
    return [Finding(name="plan", level=level, said=said, do=do, lines=table, details=details), *_memory(chosen)]


def _fit(chosen: Plan, free: int) -> tuple[Level, str]:
    needed = plans.needed_bytes(chosen)
    if needed > free:
        return "fail", f"a clip of 1280x704 needs {needed / 1e9:.1f} GB: stop other programs on the card, or use a larger one"
    if chosen.tiled:
        offered = plans.offered(chosen.linears, chosen.decoder)
        enough = min(plans.needed_bytes(each) for each in offered if not each.tiled)
        return (
            "warn",
            f"clips are decoded in tiles, which changes pixels near the seams; {enough / 1e9:.1f} GB free would avoid it",
        )
    return "ok", ""


def _memory(chosen: Plan) -> list[Finding]:
    """The machine's RAM, if the plan uses it."""
    total, _ = host.memory_bytes()
    needed = plans.needed_ram_bytes(chosen)
    said = f"{total / 1e9:.1f} GB; the plan needs {needed / 1e9:.1f} GB"
    if total < needed:
        return [Finding(name="memory", level="warn", said=said, do="give the machine or container more memory")]
    return [Finding(name="memory", level="ok", said=said)]


def _row(where: str, chosen: Plan) -> str:
    text = {"card": "text encoder on the card", "card8": "text encoder 8-bit on the card", "cpu": "text encoder on the CPU"}
    parts = [f"transformer {chosen.transformer}", text[chosen.text], f"decoded in chunks of {chosen.chunk}"]
    parts += ["fp8"] if chosen.linears == "fp8" else []
    parts += ["tiny decoder"] if chosen.decoder == "tiny" else []
    parts += ["in tiles"] if chosen.tiled else []
    return f"{where}: {chosen.name}, {plans.needed_bytes(chosen) / 1e9:.1f} GB ({', '.join(parts)})"
