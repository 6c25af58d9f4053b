"""`worker doctor`: what an examination found, for people or programs. It looks at nothing itself."""

from __future__ import annotations

from typing import Any

import click

from cli.answer import EXIT_FAILED, Failure, act_as_worker, load_settings, open_worker, say, with_json
from doctor import mend
from doctor.examination import examine
from settings import Settings


@click.command()
@click.option("--fix", is_flag=True, help="First put right what is safe; each is said, and noted in the audit trail.")
@with_json
@click.pass_context
def doctor(context: click.Context, fix: bool, as_json: bool) -> None:
    """Look at everything that jobs need: each line is ok, warn or fail, with what to do. Ends with 1 if one is fail.

    Works while the worker runs and while it does not. No job is claimed, and nothing is sent to the store. With --fix,
    the modes of secret files, what killed programs left, log-ins that are over, the queue's log and reserve, and programs
    that were stopped are put right; no job, output or setting is touched.
    """
    settings = load_settings()
    act_as_worker(settings)
    fixes = _fixes(settings, quiet=as_json) if fix else []
    found = examine(settings)
    text = "\n".join([*(line for check in found["checks"] for line in _lines(check)), _verdict(found["checks"])])
    say(text, {**found, "fixes": fixes} if fix else found, as_json)
    context.exit(0 if found["ok"] and all(each["ok"] for each in fixes) else EXIT_FAILED)


def _fixes(settings: Settings, quiet: bool) -> list[dict[str, Any]]:
    """Put right what can be, one after the other; each is said before it is done, and then what came of it."""
    try:
        planned = mend.repairs(settings)
    except mend.TROUBLE as error:
        raise Failure(f"{settings.database}: {error}; nothing was put right. worker doctor says more", EXIT_FAILED) from None
    if not planned:
        _say("fix   nothing is to be put right\n", quiet)
        return []
    operator, done = open_worker().operator, []
    for repair in planned:
        _say(f"fix   {repair.name:<13}  {repair.said}; {repair.does}", quiet)
        done.append(mend.carry_out(repair, operator.control, operator.actor))
        _say(f"      {done[-1]['result']}\n", quiet)
    return done


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        click.echo(line)


def _lines(check: dict[str, Any]) -> list[str]:
    lines = [f"{check['level']:4}  {check['name']:<13}  {check['said']}"]
    lines += [f"      {line}" for line in check["lines"]]
    return [*lines, f"      to do: {check['do']}"] if check["do"] else lines


def _verdict(checks: list[dict[str, Any]]) -> str:
    counts = {level: sum(check["level"] == level for check in checks) for level in ("fail", "warn")}
    return f"{counts['fail']} failed, {counts['warn']} warned" if any(counts.values()) else "all is well"
