"""The whole examination: all checks in parallel, each with a time limit, so that the caller always gets an answer.

It changes nothing, claims nothing and sends nothing to the store; it works whether or not the worker is running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import supervision
from doctor import card, house, jobs, listeners, machine, mend, outside, vast
from doctor.finding import Finding, Situation
from jobqueue import clock
from settings import Settings
from telemetry import gpu

Check = Callable[[Situation], list[Finding]]

#: The checks in the order of the report, by the name used if a check returns no finding.
CHECKS: dict[str, Check] = {
    "GPU": card.card,
    "torch": card.packages,
    "plan": card.plan,
    "weights": house.weights,
    "encoder": machine.encoder,
    "shared memory": machine.shared_memory,
    "disk": machine.disk,
    "queue": house.queue,
    "programs": house.programs,
    "jobs": jobs.jobs,
    "ports": house.ports,
    "listeners": listeners.listeners,
    "page": listeners.page,
    "Vast": vast.vast,
    "orchestrator": outside.orchestrator,
    "store": outside.store,
    "to mend": mend.check,
}
#: A driver that was asleep takes longer than one that is queried all the time.
DRIVER_TIMEOUT_S = 10.0
#: Time limit of a check. The queue's file is read completely, and an orchestrator may be slow.
LIMIT_S = 20.0
#: Time limit of everything: the driver twice, supervisord, then all checks in parallel.
WHOLE_S = 48.0


def examine(settings: Settings) -> dict[str, Any]:
    """The result: ok (whether nothing failed), at (UTC text), checks (a `Finding` each, as a dict)."""
    try:
        programs = supervision.programs(settings.run_dir)
    except supervision.NotRunning:
        programs = None
    cards = gpu.readings(settings.GPUS, DRIVER_TIMEOUT_S)
    asked = any(one["memory_total_mib"] for one in cards)  # do not query a driver again that hangs or has lost its cards
    health = gpu.health(settings.GPUS, DRIVER_TIMEOUT_S) if asked else []
    now = Situation(settings=settings, cards=cards, programs=programs, health=health)
    return as_answer(within(LIMIT_S, CHECKS, now))


def as_answer(findings: list[Finding]) -> dict[str, Any]:
    """Findings as every interface returns them. The keys are API: they are added to, never changed."""
    ok = not any(finding.level == "fail" for finding in findings)
    return {"ok": ok, "at": clock.utc(), "checks": [asdict(finding) for finding in findings]}


def within(limit_s: float, checks: Mapping[str, Check], now: Situation) -> list[Finding]:
    """The findings of the checks, in their order. A check that times out or raises becomes a finding that says so.

    A thread that hangs in a file system or a driver cannot be stopped; it is abandoned, and ends with the process.
    """
    found: dict[str, list[Finding]] = {}

    def run(name: str, check: Check) -> None:
        found[name] = check(now)

    threads = {
        name: threading.Thread(target=run, args=(name, check), name=f"check {name}", daemon=True)
        for name, check in checks.items()
    }
    deadline = time.monotonic() + limit_s
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return [one for name, thread in threads.items() for one in found.get(name, _without(name, thread.is_alive(), limit_s))]


def _without(name: str, hangs: bool, limit_s: float) -> list[Finding]:
    """The finding of a check that did not return."""
    if hangs:
        do = "a disk, a network or a driver hangs: dmesg on the host may say which"
        return [Finding(name=name, level="fail", said=f"no answer within {limit_s:g} s", do=do)]
    return [
        Finding(name=name, level="fail", said="the check itself crashed", do="report it, with its output on standard error")
    ]
