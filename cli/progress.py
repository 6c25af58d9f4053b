"""How far a command's work is, on standard error. It shows what it is told, and looks at nothing itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click


@contextlib.contextmanager
def shown(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on a terminal, otherwise a line per step. It is given how much is done, 0 to 1, and the step."""
    stream = sys.stderr
    if stream.isatty() and not quiet:
        with click.progressbar(length=100, file=stream, show_eta=False, item_show_func=_step) as bar:
            yield lambda fraction, step: bar.update(max(0, round(fraction * 100) - bar.pos), step)
        return
    last = ""

    def line(fraction: float, step: str) -> None:
        nonlocal last
        words = f"{fraction:4.0%}  {step}"
        if words != last:
            last = words
            click.echo(words, err=True)

    yield line


def _step(step: Any) -> str:
    return step or ""
