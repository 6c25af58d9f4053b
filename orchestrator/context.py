"""What a route finds when it is called: the orchestrator it works for, and the body of its request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from flask import abort, current_app, request

from jobqueue.database import Database
from orchestrator.jobs import Rules
from orchestrator.silence import Silence


@dataclass(frozen=True, kw_only=True)
class Orchestrator:
    database: Database
    rules: Rules
    silence: Silence


def here() -> Orchestrator:
    """The orchestrator of the request at hand."""
    return cast(Orchestrator, current_app.extensions["orchestrator"])


def json_body() -> Any:
    """The body of the request at hand, strictly JSON: no NaN, no infinite number, no half of a character."""
    try:
        body = json.loads(request.get_data())
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        abort(400, f"the body is not JSON: {error}")
    return body
