"""The operator's page: a window onto the queue. It may do nothing that `operations.Operator` cannot do for it.

Server-rendered pages that work without JavaScript; `static/panel.js` fetches the same page again every two seconds and
morphs it in. Everything is served from here: no other host is ever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import flask
from markupsafe import Markup

from admin import actions, gpu, jobs, login, overview, security, words
from admin.access import Access, Limiter
from admin.live import Seen
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.samples import Samples
from settings import Settings


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What the pages look at."""

    settings: Settings
    queue: Queue
    control: Control
    outbox: Outbox
    samples: Samples
    access: Access
    mask: Callable[[str], str]  # takes secrets and the queries of links out of a text
    started: str = field(default_factory=clock.utc)
    limiter: Limiter = field(default_factory=Limiter)
    seen: Seen = field(default_factory=Seen)


def create_app(worker: Worker) -> flask.Flask:
    """The application; make it after the fork."""
    app = flask.Flask("admin")
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    app.extensions["worker"] = worker
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["mask"] = worker.mask
    app.jinja_env.finalize = lambda value: value if isinstance(value, Markup) else words.plain(worker.mask(str(value)))
    security.protect(app, worker)
    for page in (login, actions, overview, jobs, gpu):
        app.register_blueprint(page.pages)
    return app
