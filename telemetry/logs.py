"""One line an event, on standard output and in DATA_DIR/logs, with program and job; secrets masked on the way out.

`LOG_FORMAT` chooses text or JSON for standard output; the files are always JSON lines, which `worker logs` and the page read.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog

FILE_BYTES = 5_000_000
FILES_KEPT = 3

_LEVELS = {"debug": "debug", "info": "info ", "warning": "WARN ", "error": "ERROR", "critical": "ERROR"}
_QUERY = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]+")

Event = MutableMapping[str, Any]


def set_up(program: str, log_format: str, folder: Path | None, secrets: list[str]) -> None:
    """Send all logging of this process to standard output and, if given, to `folder`/`program`.log."""
    mask = masker(secrets)
    before = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        _named(program),
    ]
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    handlers[0].setFormatter(_formatter(before, _as_json(mask) if log_format == "json" else _as_text(mask)))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(folder / f"{program}.log", "a", FILE_BYTES, FILES_KEPT, delay=True)
        file.setFormatter(_formatter(before, _as_json(mask)))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not make logging an error of its own
    for noisy in ("urllib3", "b2sdk", "werkzeug", "PIL", "logfury"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sys.excepthook = _log_uncaught


def masker(secrets: list[str]) -> Callable[[str], str]:
    """A function that takes known secrets, also as JSON writes them, and queries of links (signed URLs) out of a text."""
    long = [secret for secret in secrets if len(secret) >= 4]
    forms = {*long, *(json.dumps(secret, ensure_ascii=ascii_)[1:-1] for secret in long for ascii_ in (False, True))}
    known = sorted(map(re.escape, forms), key=len, reverse=True)
    pattern = re.compile("|".join(known)) if known else None

    def mask(text: str) -> str:
        text = _QUERY.sub(r"\1?••••", text)
        return pattern.sub("••••", text) if pattern else text

    return mask


def as_text(event: Mapping[str, Any]) -> str:
    """A log event as a line for people: time, program, level, text, then what is bound (job, stage, attempt)."""
    rest = " ".join(
        f"{key}={value}" for key, value in event.items() if key not in ("at", "program", "level", "event", "exception")
    )
    line = f"{event['at']} {event['program']:<10} {_LEVELS.get(event['level'], event['level'])} {event['event']}"
    line += f"  [{rest}]" if rest else ""
    if event.get("exception"):
        line += " | " + str(event["exception"]).replace("\n", " | ")
    return line.replace("\n", " | ")


def _formatter(before: list[Any], render: Any) -> logging.Formatter:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[remove, render])


def _named(program: str) -> Any:
    def add(logger: Any, method: str, event: Event) -> Event:
        return {"at": event.pop("at"), "program": program, "level": event.pop("level"), **event}

    return add


def _as_text(mask: Callable[[str], str]) -> Any:
    return lambda logger, method, event: mask(as_text(event))


def _as_json(mask: Callable[[str], str]) -> Any:
    return lambda logger, method, event: mask(json.dumps(event, default=str, ensure_ascii=False))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    logging.getLogger("uncaught").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
