"""`worker test`: the project's own tests; the `worker` script has installed what they need."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NoReturn

import click

from cli.answer import EXIT_FAILED, Failure, say
from cli.up import CHECKOUT
from settings import child_environment

#: What is said to pytest when nothing is asked for: all tests, two processes a core, since most of them wait for programs (9
#: minutes on two cores). A file stays in one process, so what its tests share is started once; in the files' order, so the long
#: ones begin early.
EVERYTHING = (f"--numprocesses={min(2 * (os.cpu_count() or 1), 8)}", "--dist=loadfile", "--no-loadscope-reorder")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON after the tests.")
def test(arguments: tuple[str, ...], as_json: bool) -> NoReturn:
    """Run the tests in parallel. ARGUMENTS, if any, are passed to pytest: a file, -k WORD, -m slow, …"""
    if importlib.util.find_spec("pytest") is None:
        raise Failure("pytest is not installed; ./worker test in a checkout installs it", EXIT_FAILED)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *(arguments or EVERYTHING), *([f"--junitxml={report}"] if as_json else [])]
        environment = child_environment(PYTHONDONTWRITEBYTECODE=None)  # else each of the programs compiles the checkout again
        out = sys.stderr if as_json else None
        code = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False, stdout=out).returncode
        if as_json:
            say("", _counts(report) | {"code": code}, True)
    sys.exit(code)


def _counts(report: Path) -> dict[str, int]:
    if not report.exists():
        return {}
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it just now
    names = ("tests", "failures", "errors", "skipped")
    total = dict.fromkeys(names, 0)
    for suite in suites:
        total = {name: total[name] + int(suite.get(name, 0)) for name in names}
    return total
