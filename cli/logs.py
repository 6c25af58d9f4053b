"""`worker logs`: the log files of all programs as one stream, ordered by time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from cli.answer import EXIT_NOT_FOUND, Failure, load_settings
from telemetry.logs import as_text

#: How often --follow looks for new lines, in seconds.
LOOK_EVERY_S = 0.25

Line = dict[str, Any]


@click.command()
@click.argument("program", required=False)
@click.option("-f", "--follow", is_flag=True, help="Print new lines until Ctrl-C.")
@click.option("-n", "limit", default=50, show_default=True, type=click.IntRange(0), help="Number of past lines.")
@click.option("--job", help="Only lines about this job.")
@click.option("--json", "as_json", is_flag=True, help="Print the stored lines, one JSON object each.")
def logs(program: str | None, follow: bool, limit: int, job: str | None, as_json: bool) -> None:
    """Print the log of all programs, or of one: poller, inference, uploader, api, admin, guard, supervisor."""
    folder = load_settings().data_dir / "logs"
    files = sorted(folder.glob(f"{program or '*'}.log"))
    if not files and not follow:
        raise Failure(f"{folder}: no log" + (f" of {program}" if program else "") + " yet", EXIT_NOT_FOUND)
    followed = _Followed(folder, program or "*")
    past: deque[Line] = deque(_sorted(_past(files), job), maxlen=limit)
    _print(past, as_json)
    try:
        while follow:
            _print(_sorted(followed.new_lines(), job), as_json)
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        return


def _past(files: list[Path]) -> Iterator[Line]:
    for file in files:
        for part in (*sorted(file.parent.glob(file.name + ".*"), reverse=True), file):
            with contextlib.suppress(FileNotFoundError), part.open(encoding="utf-8", errors="replace") as opened:
                yield from _parsed(opened)  # one that is just being replaced has gone


def _parsed(lines: Any) -> Iterator[Line]:
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            continue  # half of a line, where the disk was full or the machine went off
        if isinstance(line, dict) and {"at", "program", "level", "event"} <= line.keys():
            yield line


def _sorted(lines: Iterator[Line], job: str | None) -> list[Line]:
    return sorted((line for line in lines if job is None or line.get("job") == job), key=lambda line: str(line["at"]))


def _print(lines: Any, as_json: bool) -> None:
    for line in lines:
        click.echo(json.dumps(line, ensure_ascii=False) if as_json else as_text(line))


class _Followed:
    """Files that grow: what is at their end now is the past; files that are replaced are followed under their name."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, f"{pattern}.log"
        self._open: dict[Path, TextIO] = {}
        for file in self._folder.glob(self._pattern):
            with contextlib.suppress(FileNotFoundError):
                self._follow(file).seek(0, 2)

    def new_lines(self) -> Iterator[Line]:
        for file in sorted(self._folder.glob(self._pattern)):
            opened = self._open.get(file)
            if opened is not None:
                yield from _parsed(_whole_lines(opened))
            with contextlib.suppress(FileNotFoundError):  # it is just being replaced: the next look finds the new one
                if opened is None or os.fstat(opened.fileno()).st_ino != file.stat().st_ino:
                    yield from _parsed(_whole_lines(self._follow(file)))

    def _follow(self, file: Path) -> TextIO:
        opened = file.open(encoding="utf-8", errors="replace")
        if file in self._open:
            self._open[file].close()
        self._open[file] = opened
        return opened


def _whole_lines(opened: TextIO) -> Iterator[str]:
    """What was added since; the beginning of a line is left for later."""
    while True:
        place = opened.tell()
        line = opened.readline()
        if not line.endswith("\n"):
            opened.seek(place)
            return
        yield line
