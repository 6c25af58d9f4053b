"""What the programs print, line by line, to the container's standard output.

supervisord delivers raw chunks; here they become complete lines, so that two programs never share one. A line that is not a
log line (a traceback at import, output of a C library) is logged under its program's name, so that every line has one format.
supervisord's own way, reopening /dev/fd/1, fails if it is another user's or a socket, and overwrites if it is a file.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass, field
from io import TextIOBase
from typing import Any

import structlog

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024
MAX_STRANGE_LINES = 200
#: When lines that are not log lines count as complete, in seconds.
SETTLED_S = 0.2

#: The text format of telemetry.logs: time, program, level, event.
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ \S+ +(?:debug|info|WARN|ERROR) +(?P<event>.*)")


class Output:
    """Assembles lines from chunks, by program and channel."""

    def __init__(self, log_format: str, outside: TextIOBase) -> None:
        self._outside = outside
        self._event = _json_event if log_format == "json" else _text_event
        self._unfinished: dict[tuple[str, str], bytes] = {}
        self._strange: dict[str, _Strange] = {}
        self._last: dict[str, str] = {}

    def piece(self, program: str, channel: str, data: bytes) -> None:
        """Take a chunk of a program's output; complete log lines go out at once."""
        *lines, rest = (self._unfinished.get((program, channel), b"") + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._unfinished[program, channel] = rest
        self._lines(program, lines)

    def ended(self, program: str) -> None:
        """The program has exited: its unfinished line is complete."""
        self._lines(program, [self._unfinished.pop((program, channel), b"") for channel in ("stdout", "stderr")])
        self._flush(program)

    def settle(self) -> None:
        """Write out lines that are not log lines and have not been added to for a moment."""
        now_s = time.monotonic()
        for program in [name for name, strange in self._strange.items() if now_s - strange.since_s > SETTLED_S]:
            self._flush(program)

    def last_line(self, program: str) -> str | None:
        """The text of the program's last line, without time and level."""
        return self._last.get(program)

    def _lines(self, program: str, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if not text:
                continue
            event = self._event(text)
            self._last[program] = text.strip() if event is None else event
            if event is not None:
                self._flush(program)
                self._outside.write(text + "\n")
                continue
            strange = self._strange.setdefault(program, _Strange(since_s=time.monotonic()))
            strange.lines.append(text)
            if len(strange.lines) >= MAX_STRANGE_LINES:
                self._flush(program)

    def _flush(self, program: str) -> None:
        strange = self._strange.pop(program, None)
        if strange is not None:
            with structlog.contextvars.bound_contextvars(program=program):
                log.warning("%s", " | ".join(strange.lines))


@dataclass(kw_only=True)
class _Strange:
    """Consecutive lines that are not log lines: a traceback, which arrives in chunks, is one event."""

    since_s: float
    lines: list[str] = field(default_factory=list)


def _json_event(text: str) -> str | None:
    try:
        line: Any = json.loads(text)
    except ValueError:
        return None
    return str(line["event"]) if isinstance(line, dict) and "event" in line else None


def _text_event(text: str) -> str | None:
    match = _TEXT_LINE.fullmatch(text)
    return match["event"] if match else None
