"""`worker doctor`: what an examination found, for people or programs. It looks at nothing itself."""

from __future__ import annotations

from typing import Any

import click

from cli.answer import EXIT_FAILED, act_as_worker, load_settings, say, with_json
from doctor.examination import examine


@click.command()
@with_json
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Look at everything that jobs need: each line is ok, warn or fail, with what to do. Ends with 1 if one is fail.

    Works while the worker runs and while it does not. No job is claimed, and nothing is sent to the store.
    """
    settings = load_settings()
    act_as_worker(settings)
    found = examine(settings)
    text = "\n".join([*(line for check in found["checks"] for line in _lines(check)), _verdict(found["checks"])])
    say(text, found, as_json)
    context.exit(0 if found["ok"] else EXIT_FAILED)


def _lines(check: dict[str, Any]) -> list[str]:
    lines = [f"{check['level']:4}  {check['name']:<13}  {check['said']}"]
    lines += [f"      {line}" for line in check["lines"]]
    return [*lines, f"      to do: {check['do']}"] if check["do"] else lines


def _verdict(checks: list[dict[str, Any]]) -> str:
    counts = {level: sum(check["level"] == level for check in checks) for level in ("fail", "warn")}
    return f"{counts['fail']} failed, {counts['warn']} warned" if any(counts.values()) else "all is well"
