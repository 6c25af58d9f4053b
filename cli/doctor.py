"""`worker doctor`: looks at everything that jobs need, and says of each fault what to do about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import click

import supervision
from cli.answer import EXIT_FAILED, act_as_worker, load_settings, say, with_json
from cli.examine import card, house, machine, outside
from cli.examine.finding import Finding, Situation
from telemetry import gpu

#: In the order of the report.
CHECKS: tuple[Callable[[Situation], list[Finding]], ...] = (
    *(card.card, card.packages, card.plan, house.weights, machine.encoder, machine.shared_memory, machine.disk),
    *(house.queue, house.programs, house.ports, outside.orchestrator, outside.store),
)
#: A driver that was asleep takes longer than one that is asked all the time.
DRIVER_TIMEOUT_S = 10.0


@click.command()
@with_json
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Look at everything that jobs need: each line is ok, warn or fail, with what to do. Ends with 1 if one is fail.

    Works while the worker runs and while it does not. No job is claimed, and nothing is sent to the store.
    """
    settings = load_settings()
    act_as_worker(settings)
    try:
        programs = supervision.programs(settings.run_dir)
    except supervision.NotRunning:
        programs = None
    now = Situation(settings=settings, cards=gpu.readings(settings.GPUS, DRIVER_TIMEOUT_S), programs=programs)
    findings = [finding for check in CHECKS for finding in check(now)]
    failed = any(finding.level == "fail" for finding in findings)
    text = "\n".join([*(line for finding in findings for line in _lines(finding)), _verdict(findings)])
    say(text, {"ok": not failed, "checks": [asdict(finding) for finding in findings]}, as_json)
    context.exit(EXIT_FAILED if failed else 0)


def _lines(finding: Finding) -> list[str]:
    lines = [f"{finding.level:4}  {finding.name:<13}  {finding.said}"]
    lines += [f"      {line}" for line in finding.lines]
    return [*lines, f"      to do: {finding.do}"] if finding.do else lines


def _verdict(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in ("fail", "warn")}
    return f"{counts['fail']} failed, {counts['warn']} warned" if any(counts.values()) else "all is well"
