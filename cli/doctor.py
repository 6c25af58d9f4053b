"""`worker doctor`: prints the findings of an examination, for people or programs. It checks nothing itself."""

from __future__ import annotations

from typing import Any

import click

from cli.answer import EXIT_FAILED, Failure, act_as_worker, load_settings, open_worker, say, with_json
from doctor import mend
from doctor.examination import examine
from settings import Settings


@click.command()
@click.option("--fix", is_flag=True, help="First apply safe fixes; each is printed, and noted in the audit trail.")
@with_json
@click.pass_context
def doctor(context: click.Context, fix: bool, as_json: bool) -> None:
    """Check everything that jobs need. Each line is ok, warn or fail, with what to do. Exits with 1 if any check fails.

    Works whether or not the worker is running. Claims no job, and sends nothing to the store. --fix repairs the modes of
    secret files, leftovers of killed programs, expired sessions, the queue's log and reserve, and stopped programs; it
    touches no job, output or setting.
    """
    settings = load_settings()
    act_as_worker(settings)
    fixes = _fixes(settings, quiet=as_json) if fix else []
    found = examine(settings)
    text = "\n".join([*(line for check in found["checks"] for line in _lines(check)), _verdict(found["checks"])])
    say(text, {**found, "fixes": fixes} if fix else found, as_json)
    context.exit(0 if found["ok"] and all(each["ok"] for each in fixes) else EXIT_FAILED)


def _fixes(settings: Settings, quiet: bool) -> list[dict[str, Any]]:
    """Apply the fixes one by one; print each before it is done, and then its result."""
    try:
        planned = mend.repairs(settings)
    except mend.TROUBLE as error:
        raise Failure(f"{settings.database}: {error}; nothing was fixed; see worker doctor", EXIT_FAILED) from None
    if not planned:
        _say("fix   nothing to fix\n", quiet)
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
    fails, warns = (sum(check["level"] == level for check in checks) for level in ("fail", "warn"))
    said = f"{fails} failure{'' if fails == 1 else 's'}, {warns} warning{'' if warns == 1 else 's'}"
    return said if fails or warns else "all checks passed"
