"""The programs' log files as the pages show them: whole lines, by place in the file, of which nothing is left but text.

A place is the file's inode and a byte: a file that was set aside and begun anew is read to its end, then its successor. One
look reads at most MOST_BYTES. The lines are masked once more, because a secret may be newer than they are.
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

from admin import words

MOST_BYTES = 64 * 1024
#: How far back the lines about one job are looked for in each program's log, in bytes.
JOB_BYTES = 1024 * 1024
#: The programs that say something about a job.
OF_JOBS = ("poller", "inference", "uploader")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
#: Colours and other orders to a terminal; what a progress bar overwrote.
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


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Lines, oldest first; `after`: the place to go on from; `cut`: whether something before them was left out."""

    lines: list[Line]
    after: str
    cut: bool


def names(folder: Path) -> list[str]:
    """The programs that have a log."""
    return sorted(path.stem for path in folder.glob("*.log") if _NAME.fullmatch(path.stem))


def read(folder: Path, name: str, after: str, mask: Mask) -> Piece | None:
    """What follows the place `after`; the newest MOST_BYTES if it is empty or not known any more. None: no such log."""
    found = _files(folder, name)
    if not found:
        return None
    try:
        place = next((n for n, (inode, _) in enumerate(found) if inode == _inode(after)), None)
        if place is None:
            inode, file = found[-1]
            size = os.fstat(file.fileno()).st_size
            data, end = _chunk(file, max(0, size - MOST_BYTES), middle=size > MOST_BYTES)
            cut = size > MOST_BYTES or bool(after)
        else:
            inode, file = found[place]
            data, end = _chunk(file, _offset(after))
            cut = False
            if not data and place + 1 < len(found):  # whatever half a line it ends with will never be whole
                inode, file = found[place + 1]
                data, end = _chunk(file, 0)
        return Piece(lines=[line for text in data if (line := _line(text, mask))], after=f"{inode}-{end}", cut=cut)
    finally:
        for _, file in found:
            file.close()


def of_job(folder: Path, job_id: str, mask: Mask, limit: int = 500) -> Piece:
    """The newest lines about a job, of all programs, in the order of time. `cut`: there may be more in the files."""
    lines: list[Line] = []
    cut, mark = False, json.dumps(job_id, ensure_ascii=False).encode(errors="replace")
    for name in OF_JOBS:
        budget = JOB_BYTES
        for _, file in reversed(found := _files(folder, name)):
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - budget))
            mine = [text for text in file.read(min(size, budget)).splitlines() if mark in text]
            parsed = [line for text in mine if _is_about(text, job_id) and (line := _line(text, mask))]
            lines.extend(parsed)
            cut, budget = cut or size > budget, max(0, budget - size)
        for _, file in found:
            file.close()
    lines.sort(key=lambda line: line.at)
    return Piece(lines=lines[-limit:], after="", cut=cut or len(lines) > limit)


def as_text(line: Line) -> str:
    return f"{line.at} {line.program:<10} {line.level:<8} {line.text}"


def whole(folder: Path, name: str, mask: Mask) -> Iterator[str]:
    """All lines that are kept of a program, oldest first, for a download."""
    found = _files(folder, name)
    try:
        for _, file in found:
            for text in file:
                if line := _line(text, mask):
                    yield as_text(line) + "\n"
    finally:
        for _, file in found:
            file.close()


def _files(folder: Path, name: str) -> list[tuple[int, BinaryIO]]:
    """A program's log files with their inodes, oldest first; no link is followed."""
    opened: list[tuple[int, BinaryIO]] = []
    if not _NAME.fullmatch(name):
        return opened
    for path in (*(folder / f"{name}.log.{number}" for number in range(9, 0, -1)), folder / f"{name}.log"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        facts = os.fstat(handle)
        if stat.S_ISREG(facts.st_mode) and facts.st_ino not in [inode for inode, _ in opened]:  # renamed while we looked
            opened.append((facts.st_ino, os.fdopen(handle, "rb")))
        else:
            os.close(handle)
    return opened


def _chunk(file: BinaryIO, start: int, middle: bool = False) -> tuple[list[bytes], int]:
    """At most MOST_BYTES of whole lines from a byte on, and where they end. middle: the first line may be half a one."""
    file.seek(start)
    data = file.read(MOST_BYTES)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) == MOST_BYTES:  # one line, longer than a whole look: it is passed over
        file.seek(start)
        file.readline(256 * MOST_BYTES)
        return [b'{"level": "warning", "event": "(a line of more than 64 KB is left out here)"}'], file.tell()
    lines = data[:end].splitlines()
    return lines[1:] if middle else lines, start + end


def _is_about(text: bytes, job_id: str) -> bool:
    try:
        line = json.loads(text)
    except ValueError:
        return False
    return isinstance(line, dict) and line.get("job") == job_id


def _line(text: bytes, mask: Mask) -> Line | None:
    try:
        line: Any = json.loads(text)
    except ValueError:
        line = {"event": text.decode(errors="replace")}
    if not isinstance(line, dict) or not line:
        return None
    bound = " ".join(f"{name}={value}" for name, value in line.items() if name not in _BOUND)
    said = f"{line.get('event', '')}" + (f"  [{bound}]" if bound else "")
    said += f"\n{line['exception']}" if line.get("exception") else ""
    at, program, level = (plain(mask(str(line.get(name) or ""))) for name in ("at", "program", "level"))
    return Line(at=at[:40], program=program[:40], level=level[:20], text=plain(mask(said)))


def plain(text: str) -> str:
    """A text as a terminal would have left it, without what cannot be seen."""
    return words.plain(_OVERWRITTEN.sub("", _ORDERS.sub("", text)).replace("\r\n", "\n").rstrip())


def _inode(place: str) -> int:
    return int(place.split("-")[0]) if re.fullmatch(r"\d{1,20}-\d{1,15}", place) else -1


def _offset(place: str) -> int:
    return int(place.split("-")[1])
