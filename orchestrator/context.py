"""The context of a request: its orchestrator and its body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from flask import abort, current_app, request

from orchestrator.jobs import Rules
from orchestrator.silence import Silence
from orchestrator.transaction import Database


@dataclass(frozen=True, kw_only=True)
class Orchestrator:
    database: Database
    rules: Rules
    silence: Silence


def here() -> Orchestrator:
    """The orchestrator of the current request."""
    return cast(Orchestrator, current_app.extensions["orchestrator"])


def json_body() -> Any:
    """The body of the current request, strictly JSON: no NaN, no infinity, no lone surrogate."""
    try:
        body = json.loads(request.get_data())
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        abort(400, f"the body is not valid JSON: {error}")
    return body
