"""A new job from a claim, /generate or an operator: checked field by field, and turned into a `NewJob`.

A claimed job that cannot be run is added as failed, so that its orchestrator is told why; /generate answers 422 instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from jobqueue.job import NewJob

#: Inputs that are links to media, by engine; the same names are the files in the job's folder.
LINKS = {"musetalk": ("video_url", "audio_url"), "fastwan": ("image_url",)}

#: Characters that a prompt may have; the model reads the first 512 words or parts of words.
MAX_WORDS = 10_000

_ID = re.compile(r"(?!\.)[A-Za-z0-9._:-]{1,200}")  # one that begins with a dot would be a hidden file in the local store

NO_LINK = "is missing; must be an http:// or https:// link"

Check = Callable[[Any], str | None]


def shape(engine: str) -> str:
    """The shape of the jobs that an engine serves: fastwan's own, else musetalk's (preview and engines of one's own)."""
    return "fastwan" if engine == "fastwan" else "musetalk"


def problems(payload: Mapping[str, Any], engine: str, *, local: bool = False) -> dict[str, str]:
    """What is wrong with a job's fields, by field; empty if nothing is. local: file links are allowed too."""
    other = "musetalk" if engine == "fastwan" else "fastwan"
    if not any(payload.get(link) for link in LINKS[engine]) and any(payload.get(link) for link in LINKS[other]):
        wanted, found = " and ".join(LINKS[engine]), " and ".join(link for link in LINKS[other] if payload.get(link))
        return {LINKS[engine][0]: f"this worker serves {engine} jobs ({wanted}); this is a {other} job ({found})"}
    checks = {"musetalk_job_id": _id, **dict.fromkeys(LINKS[engine], _file_or_link if local else _link), **_CHECKS[engine]}
    found_wrong = {name: check(payload.get(name)) for name, check in checks.items()}
    return {name: wrong for name, wrong in found_wrong.items() if wrong}


def new_job(payload: Mapping[str, Any], engine: str, source: str, *, queue_job_id: str | None = None) -> NewJob:
    """The job to add. If its fields are wrong it carries the error that it fails with."""
    defaults = _defaults(engine, source)
    payload = defaults | {name: value for name, value in payload.items() if value is not None}
    wrong = problems(payload, engine, local=source == "local")
    error = None
    if wrong:
        error = {
            "message": "; ".join(f"{name}: {text}" for name, text in wrong.items())[:2000],
            "error_type": "media_error",
            "retryable": False,
            "stage": "validation",
            "details": {"fields": wrong},
        }
    names = dict.fromkeys((*LINKS[engine], *defaults, *(("negative_prompt", "prompt") if engine == "fastwan" else ())))
    inputs = {name: payload[name] for name in names if name in payload}
    params = payload.get("params") or {}
    return NewJob(
        id=str(payload.get("musetalk_job_id")),
        source=source,
        engine=engine,
        inputs={} if wrong else inputs,
        params=params if isinstance(params, dict) and not wrong else {},
        buffer_job_id=str(payload["buffer_job_id"]) if is_usable(payload.get("buffer_job_id")) else None,
        queue_job_id=queue_job_id,
        error=error,
    )


def _defaults(engine: str, source: str) -> dict[str, Any]:
    if engine == "musetalk":
        return {"aspect_ratio": "1:1", "resolution": "512x512"}
    usual = {"num_frames": 121, "steps": 4, "seed": 42, "guidance_scale": 1.0}
    if source in ("main", "buffer"):  # the contract's two ways in differ: a claim may lack a prompt and is larger
        return {"prompt": "", "width": 720, "height": 1280} | usual
    return {"width": 480, "height": 832} | usual


def is_usable(job_id: Any) -> bool:
    """Whether an id, however wrong, can be kept and sent back. (JSON can hold half a character.)"""
    if isinstance(job_id, bool) or not isinstance(job_id, str | int) or job_id == "":
        return False
    try:
        str(job_id).encode()
    except UnicodeEncodeError:
        return False
    return True


def _id(value: Any) -> str | None:
    if isinstance(value, str) and _ID.fullmatch(value):
        return None
    return "must be 1 to 200 letters, digits, dots, colons, dashes or underscores, and not begin with a dot"


def _link(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return NO_LINK
    if len(value) > 8192:
        return f"is {len(value)} characters long; at most 8192"
    try:
        parts = urlsplit(value)
    except ValueError:
        return "is not a link"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be an http:// or https:// link"
    return None


def _file_or_link(value: Any) -> str | None:
    return None if isinstance(value, str) and value.startswith("file:///") else _link(value)


def _pattern(pattern: str, example: str) -> Check:
    def check(value: Any) -> str | None:
        if value is None or (isinstance(value, str) and re.fullmatch(pattern, value)):
            return None
        return f"must look like {example}"

    return check


def _number(kind: type, low: float, high: float) -> Check:
    def check(value: Any) -> str | None:
        kinds = (int,) if kind is int else (int, float)
        if value is None or (isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high):
            return None
        return f"is {_said(value)}; must be a {'whole ' if kind is int else ''}number from {low} to {high}"

    return check


def _said(value: Any) -> str:
    """A wrong value as its sender would know it again."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    written = json.dumps(value)
    return written if len(written) <= 40 else written[:37] + "..."


def _prompt(value: Any) -> str | None:
    return "is missing; must be a text, which may be empty" if value is None else _words(value)


def _words(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return f"is {_said(value)}; must be a text of at most {MAX_WORDS} characters"
    if len(value) > MAX_WORDS:
        return f"is {len(value)} characters long; at most {MAX_WORDS}"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate); must be a text"
    return None


def _params(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        return "must be an object, like {}"
    if _is_deep(value, 32):
        return "is nested too deeply; at most 32 levels"
    try:
        written = json.dumps(value, allow_nan=False)
    except ValueError:
        return "contains NaN or Infinity, which are not JSON; must be an object, like {}"
    return None if len(written) <= 200_000 else "is too large; at most 200000 characters as JSON"


def _is_deep(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deep(part, levels - 1) for part in inner)


_CHECKS: dict[str, dict[str, Check]] = {
    "musetalk": {
        "aspect_ratio": _pattern(r"\d{1,3}:\d{1,3}", "1:1 or 9:16"),
        "resolution": _pattern(r"\d{1,5}x\d{1,5}", "512x512"),
        "params": _params,
    },
    "fastwan": {
        "prompt": _prompt,
        "negative_prompt": _words,
        "num_frames": _number(int, 1, 241),  # the engine's limits, so that nothing is downloaded for a job that it would reject
        "width": _number(int, 64, 1536),
        "height": _number(int, 64, 1536),
        "steps": _number(int, 1, 100),
        "seed": _number(int, -(2**63), 2**63 - 1),
        "guidance_scale": _number(float, 0, 100),
        "params": _params,
    },
}
