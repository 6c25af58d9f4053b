"""The operator's page: a view of the queue. All its actions go through `operations.Operator`.

Server-rendered pages that work without JavaScript; `static/panel.js` fetches the same page again every two seconds and
morphs it in. Everything is served from here: no other host is ever contacted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flask
from markupsafe import Markup
from werkzeug.middleware.proxy_fix import ProxyFix

from admin import (
    actions,
    api,
    audit,
    bundle,
    config,
    doctor,
    gpu,
    jobs,
    login,
    orders,
    overview,
    packed,
    processes,
    security,
    submit,
)
from admin.access import Access, Limiter, Refusals
from admin.live import Seen
from doctor.apart import Doctor
from jobqueue import clock
from jobqueue.control import Control
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.samples import Samples
from settings import Settings
from support.text import plain

PAGES = (login, actions, overview, jobs, gpu, submit, processes, config, audit, doctor, bundle, api, orders)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What the pages read from."""

    settings: Settings
    queue: Queue
    control: Control
    outbox: Outbox
    samples: Samples
    access: Access
    mask: Callable[[str], str]  # removes secrets and the queries of links from a text
    started: str = field(default_factory=clock.utc)
    limiter: Limiter = field(default_factory=Limiter)
    refusals: Refusals = field(default_factory=Refusals)
    seen: Seen = field(default_factory=Seen)
    doctor: Doctor = field(default_factory=Doctor)

    @functools.cached_property
    def id(self) -> str:
        """The worker's id, read once: it may be in a file."""
        return self.settings.worker_id


def create_app(worker: Worker) -> flask.Flask:
    """The application; create it after the fork."""
    app = flask.Flask("admin")
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    app.request_class = submit.Request
    app.extensions["worker"] = worker
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["mask"] = worker.mask
    app.jinja_env.finalize = _finalizer(worker.mask)
    security.protect(app, worker)
    packed.pack(app)
    for page in PAGES:
        app.register_blueprint(page.pages)
    if worker.settings.ADMIN_TRUSTED_PROXY:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    return app


def _finalizer(mask: Callable[[str], str]) -> Callable[[Any], Any]:
    """What every value passes on its way into a page. Short texts are remembered: pages say the same ones every two seconds."""

    def shown(text: str) -> str:
        return plain(mask(text))

    remembered = functools.lru_cache(maxsize=4096)(shown)

    def finalize(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        text = str(value)
        return remembered(text) if len(text) <= 200 else shown(text)

    return finalize
