"""The programs' log files in a form that may be shown: complete lines of plain text, without secrets.

They are masked again, because a secret may be newer than a line. No symbolic link is followed, and only logs are opened.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from support.text import plain

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
#: Colors and other terminal control sequences; what a progress bar overwrote.
_ORDERS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|$)")
_BOUND = ("at", "program", "level", "event", "exception", "logger")

Mask = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Line:
    at: str
    program: str
    level: str
    text: str


def names(folder: Path) -> list[str]:
    """The programs that have a log."""
    return sorted(path.stem for path in folder.glob("*.log") if _NAME.fullmatch(path.stem))


def as_text(line: Line) -> str:
    return f"{line.at} {line.program:<10} {line.level:<8} {line.text}"


def whole(folder: Path, name: str, mask: Mask) -> Iterator[str]:
    """All stored lines of a program, oldest first, for a download."""
    found = opened(folder, name)
    try:
        for _, file in found:
            for text in file:
                if line := parsed(text, mask):
                    yield as_text(line) + "\n"
    finally:
        for _, file in found:
            file.close()


def opened(folder: Path, name: str) -> list[tuple[int, BinaryIO]]:
    """A program's log files with their inodes, oldest first; no link is followed."""
    found: list[tuple[int, BinaryIO]] = []
    if not _NAME.fullmatch(name):
        return found
    for path in (*(folder / f"{name}.log.{number}" for number in range(9, 0, -1)), folder / f"{name}.log"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        facts = os.fstat(handle)
        if stat.S_ISREG(facts.st_mode) and facts.st_ino not in [inode for inode, _ in found]:  # renamed in the meantime
            found.append((facts.st_ino, os.fdopen(handle, "rb")))
        else:
            os.close(handle)
    return found


def parsed(text: bytes, mask: Mask) -> Line | None:
    """A line of a log file; None if it is empty."""
    try:
        line: Any = json.loads(text)
    except ValueError:
        line = {"event": text.decode(errors="replace")}
    if not isinstance(line, dict) or not line:
        return None
    bound = " ".join(f"{name}={value}" for name, value in line.items() if name not in _BOUND)
    said = f"{line.get('event', '')}" + (f"  [{bound}]" if bound else "")
    said += f"\n{line['exception']}" if line.get("exception") else ""
    at, program, level = (_still(mask(str(line.get(name) or ""))) for name in ("at", "program", "level"))
    return Line(at=at[:40], program=program[:40], level=level[:20], text=_still(mask(said)))


def _still(text: str) -> str:
    """The text as a terminal would show it, without invisible characters."""
    return plain(_OVERWRITTEN.sub("", _ORDERS.sub("", text)).replace("\r\n", "\n").rstrip())
