"""The operator's page: a window onto the queue. It may do nothing that `operations.Operator` cannot do for it.

Server-rendered pages that work without JavaScript; `static/panel.js` fetches the same page again every two seconds and
morphs it in. Everything is served from here: no other host is ever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import flask
from markupsafe import Markup
from werkzeug.middleware.proxy_fix import ProxyFix

from admin import (
    actions,
    api,
    audit,
    bundle,
    config,
    gpu,
    jobs,
    login,
    orders,
    overview,
    packed,
    processes,
    security,
    submit,
    words,
)
from admin.access import Access, Limiter
from admin.live import Seen
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.samples import Samples
from settings import Settings

PAGES = (login, actions, overview, jobs, gpu, submit, processes, config, audit, bundle, api, orders)


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
    app.request_class = submit.Request
    app.extensions["worker"] = worker
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["mask"] = worker.mask
    app.jinja_env.finalize = lambda value: value if isinstance(value, Markup) else words.plain(worker.mask(str(value)))
    security.protect(app, worker)
    packed.pack(app)
    for page in PAGES:
        app.register_blueprint(page.pages)
    if worker.settings.ADMIN_TRUSTED_PROXY:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    return app
