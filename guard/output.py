"""What the programs print, line by line, to the container's standard output.

supervisord hands over raw pieces; here they become whole lines, so that two programs never share one. A line that is not a
log line (a traceback at import, a word of a C library) is logged under its program's name, so that every line has one shape.
supervisord's own way, reopening /dev/fd/1, fails where another user or a socket is behind it, and overwrites in a file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from typing import Any

import structlog

log = logging.getLogger(__name__)

LONGEST_LINE_BYTES = 64 * 1024

#: What telemetry.logs writes in text: time, program, level, the event.
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ \S+ +(?:debug|info|WARN|ERROR) +(?P<event>.*)")


class Output:
    """Whole lines out of pieces, by program and channel."""

    def __init__(self, log_format: str) -> None:
        self._log_format = log_format
        self._unfinished: dict[tuple[str, str], bytes] = {}
        self._last: dict[str, str] = {}

    def piece(self, program: str, channel: str, data: bytes) -> None:
        """Take what a program printed; whole lines go out at once."""
        *lines, rest = (self._unfinished.get((program, channel), b"") + data).split(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._unfinished[program, channel] = rest
        self._lines(program, lines)

    def ended(self, program: str) -> None:
        """The program is gone: what it had begun to print is a line too."""
        rests = [self._unfinished.pop((program, channel), b"") for channel in ("stdout", "stderr")]
        self._lines(program, rests)

    def last_line(self, program: str) -> str | None:
        """The text of the last line that the program printed, without time and level."""
        return self._last.get(program)

    def _lines(self, program: str, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            if not text.strip():
                continue
            event = _json_event(text) if self._log_format == "json" else _text_event(text)
            self._last[program] = text.strip() if event is None else event
            if event is None:
                with structlog.contextvars.bound_contextvars(program=program):
                    log.warning("%s", text)
            else:
                _write(text + "\n")


def _json_event(text: str) -> str | None:
    try:
        line: Any = json.loads(text)
    except ValueError:
        return None
    return str(line["event"]) if isinstance(line, dict) and "event" in line else None


def _text_event(text: str) -> str | None:
    match = _TEXT_LINE.fullmatch(text)
    return match["event"] if match else None


def _write(text: str) -> None:
    data = text.encode()
    with contextlib.suppress(OSError):  # nobody reads any more: the work goes on, the log files have it
        while data:
            data = data[os.write(1, data) :]
