"""The routes: each request goes to the module that answers it, and every error is one line of JSON without a traceback."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from api import outputs
from api.generate import Answer, Generate
from api.health import Probes
from api.scrape import Scrape
from jobqueue import intake
from jobqueue.control import Control
from jobqueue.job import Job
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from telemetry.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The api's configuration.

    engine       the ENGINE setting: musetalk, fastwan, preview or a module path
    mode         how jobs arrive: main, buffer or queue
    token        what /generate and /metrics require; None: nothing
    gpu_class    the reported GPU name; None: the name from NVML
    patience_s   how long one /generate waits for its job
    """

    engine: str
    mode: str
    version: str
    data_dir: Path
    token: str | None
    gpu_class: str | None
    patience_s: float


def create_app(
    configuration: Configuration, open_queue: Callable[[], tuple[Queue, Control, Outbox]], may_wait: Callable[[Job], bool]
) -> Flask:
    """The WSGI application. Call it in the serving process, because it opens the queue. may_wait(job): whether a request may
    keep waiting for a job; it may not if the job cannot finish before the worker stops."""
    queue, control, outbox = open_queue()
    app = Flask("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    probes = Probes(queue, control, engine=configuration.engine, mode=configuration.mode, version=configuration.version)
    generate = Generate(
        queue,
        control,
        engine=intake.shape(configuration.engine),
        gpu_class=configuration.gpu_class,
        patience_s=configuration.patience_s,
        may_wait=may_wait,
    )
    _add_probes(app, probes)
    _add_generate(app, generate, configuration.token)
    _add_metrics(app, Scrape(outbox, configuration.data_dir, probes), configuration.token)
    _add_outputs(app, outputs.Outputs(configuration.data_dir / "outputs"))
    app.register_error_handler(Exception, _on_error)
    return app


def _add_probes(app: Flask, probes: Probes) -> None:
    @app.get("/hc")
    def alive() -> Response:
        return _json({"status": "ok"}, 200)

    @app.get("/health")
    def health() -> Response:
        return _json(*probes.health())

    @app.get("/ready")
    def ready() -> Response:
        return _json(*probes.ready())


def _add_generate(app: Flask, generate: Generate, token: str | None) -> None:
    @app.post("/generate")
    def run() -> Response:
        if not _allowed(token):
            return _unauthorized()
        answer: Answer = generate.answer(
            lambda: request.get_data(cache=False), request.headers.get("Salad-Job-Id"), request.environ.get("gunicorn.socket")
        )
        response = _json(answer.body, answer.status)
        if answer.retry_after_s is not None:
            response.headers["Retry-After"] = str(answer.retry_after_s)
        return response


def _add_metrics(app: Flask, scrape: Scrape, token: str | None) -> None:
    @app.get("/metrics")
    def metrics() -> Response:
        return Response(scrape.text(), 200, content_type=CONTENT_TYPE) if _allowed(token) else _unauthorized()


def _add_outputs(app: Flask, folder: outputs.Outputs) -> None:
    @app.get("/outputs/<path:name>")
    def output(name: str) -> Response:
        return folder.send(name)


def _allowed(token: str | None) -> bool:
    if token is None:
        return True
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {token}".encode())


def _unauthorized() -> Response:
    response = _json({"error": "missing or wrong token; send Authorization: Bearer <API_TOKEN>"}, 401)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _on_error(error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        error = InternalServerError()
    response = _json({"error": f"{request.method} {request.path[:200]}: {error.name}"}, error.code or 500)
    for name, value in error.get_headers(request.environ):
        if name not in ("Content-Type", "Content-Length"):  # Allow, Retry-After, Content-Range …
            response.headers[name] = value
    return response


def _json(body: dict[str, Any], status: int) -> Response:
    response = Response(json.dumps(body), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
