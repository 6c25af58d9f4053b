"""The operator's page: a window onto the queue. It may do nothing that `operations.Operator` cannot do for it.

Server-rendered pages that work without JavaScript; `static/panel.js` fetches the same page again every two seconds and
morphs it in. Everything is served from here: no other host is ever asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import flask

from admin import jobs, login, overview, security
from jobqueue.control import Control
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from settings import Settings


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What the pages look at."""

    settings: Settings
    queue: Queue
    control: Control
    outbox: Outbox
    secret: str  # the password or token that lets an operator in


def create_app(worker: Worker) -> flask.Flask:
    """The application; make it after the fork."""
    app = flask.Flask("admin")
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    app.extensions["worker"] = worker
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    security.protect(app, worker)
    for page in (login, overview, jobs):
        app.register_blueprint(page.pages)
    return app
