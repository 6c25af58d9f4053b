"""The programs' log files as the pages read on in them: by place in the file, and by job.

A place is the file's inode and a byte offset: a rotated file is read to its end, then its successor. One request reads at most
MAX_BYTES.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from support import log_files
from support.log_files import Mask

MAX_BYTES = 64 * 1024
#: How far back the lines about one job are looked for in each program's log, in bytes.
JOB_BYTES = 1024 * 1024
#: The programs that say something about a job.
OF_JOBS = ("poller", "inference", "uploader")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Lines, oldest first; `after`: the place to go on from; `cut`: whether something before them was left out."""

    lines: list[log_files.Line]
    after: str
    cut: bool


def read(folder: Path, name: str, after: str, mask: Mask) -> Piece | None:
    """What follows the place `after`; the newest MAX_BYTES if it is empty or not known any more. None: no such log."""
    found = log_files.opened(folder, name)
    if not found:
        return None
    try:
        place = next((n for n, (inode, _) in enumerate(found) if inode == _inode(after)), None)
        if place is None:
            inode, file = found[-1]
            size = os.fstat(file.fileno()).st_size
            data, end = _chunk(file, max(0, size - MAX_BYTES), middle=size > MAX_BYTES)
            cut = size > MAX_BYTES or bool(after)
        else:
            inode, file = found[place]
            data, end = _chunk(file, _offset(after))
            cut = False
            if not data and place + 1 < len(found):  # whatever half a line it ends with will never be whole
                inode, file = found[place + 1]
                data, end = _chunk(file, 0)
        return Piece(lines=[line for text in data if (line := log_files.parsed(text, mask))], after=f"{inode}-{end}", cut=cut)
    finally:
        for _, file in found:
            file.close()


def of_job(folder: Path, job_id: str, mask: Mask, limit: int = 500) -> Piece:
    """The newest lines about a job, of all programs, in the order of time. `cut`: there may be more in the files."""
    lines: list[log_files.Line] = []
    cut, mark = False, json.dumps(job_id, ensure_ascii=False).encode(errors="replace")
    for name in OF_JOBS:
        budget = JOB_BYTES
        for _, file in reversed(found := log_files.opened(folder, name)):
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - budget))
            mine = [text for text in file.read(min(size, budget)).splitlines() if mark in text]
            parsed = [line for text in mine if _is_about(text, job_id) and (line := log_files.parsed(text, mask))]
            lines.extend(parsed)
            cut, budget = cut or size > budget, max(0, budget - size)
        for _, file in found:
            file.close()
    lines.sort(key=lambda line: line.at)
    return Piece(lines=lines[-limit:], after="", cut=cut or len(lines) > limit)


def _chunk(file: BinaryIO, start: int, middle: bool = False) -> tuple[list[bytes], int]:
    """At most MAX_BYTES of whole lines from a byte on, and where they end. middle: the first line may be half a one."""
    file.seek(start)
    data = file.read(MAX_BYTES)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) == MAX_BYTES:  # one line, longer than a whole look: it is passed over
        file.seek(start)
        file.readline(256 * MAX_BYTES)
        return [b'{"level": "warning", "event": "(a line longer than 64 KB was left out)"}'], file.tell()
    lines = data[:end].splitlines()
    return lines[1:] if middle else lines, start + end


def _is_about(text: bytes, job_id: str) -> bool:
    try:
        line = json.loads(text)
    except ValueError:
        return False
    return isinstance(line, dict) and line.get("job") == job_id


def _inode(place: str) -> int:
    return int(place.split("-")[0]) if re.fullmatch(r"\d{1,20}-\d{1,15}", place) else -1


def _offset(place: str) -> int:
    return int(place.split("-")[1])
