"""The Flask application: the key check, errors as JSON, and the two APIs.

`operators` is for clients that submit jobs, `workers` for the workers (PROTOCOL §3).
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from orchestrator import operators, workers
from orchestrator.context import Orchestrator
from orchestrator.fields import InvalidBody
from orchestrator.jobs import Conflict, Rules
from orchestrator.silence import Silence
from orchestrator.transaction import ERRORS, Database

log = logging.getLogger(__name__)

#: More than any body of the protocol needs.
MAX_BODY_BYTES = 1024 * 1024


def create_app(open_database: Callable[[], Database], api_key: str, rules: Rules) -> Flask:
    """The application on a prepared database; call it after any fork."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database = open_database()
    silence = Silence(database, rules)
    app.extensions["orchestrator"] = Orchestrator(database=database, rules=rules, silence=silence)
    app.before_request(lambda: _check_key(api_key))
    app.register_blueprint(operators.pages)
    app.register_blueprint(workers.pages)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(InvalidBody, _invalid_body)
    app.register_error_handler(Conflict, lambda error: ({"detail": str(error)}, 409))
    for kind in ERRORS:
        app.register_error_handler(kind, _database_error)
    app.register_error_handler(Exception, _our_error)
    silence.start()
    return app


def _check_key(api_key: str) -> ResponseReturnValue | None:
    if request.path == "/health":
        return None
    given = request.headers.get("X-Internal-API-Key", "")
    if hmac.compare_digest(given.encode(), api_key.encode()):
        return None
    return {"detail": "missing or wrong X-Internal-API-Key"}, 401


def _http_error(error: HTTPException) -> ResponseReturnValue:
    return {"detail": error.description or error.name}, error.code or 500


def _invalid_body(error: InvalidBody) -> ResponseReturnValue:
    answer: dict[str, Any] = {"detail": f"the request is not valid: {error}", "fields": error.fields}
    return answer, 422


def _database_error(error: Exception) -> ResponseReturnValue:
    log.error("the database does not answer: %s", error)
    return {"detail": "the database does not answer; try again later"}, 503


def _our_error(error: Exception) -> ResponseReturnValue:
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return {"detail": "internal error of the orchestrator; see its log"}, 500
