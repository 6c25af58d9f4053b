"""The Settings page: what the worker was started with, what it is made of, who is logged in. It changes no setting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import flask

from admin import shown
from admin.actions import operator
from admin.live import live, said, words_of
from answers import page_url
from support import setting
from support.versions import versions

pages = flask.Blueprint("config", __name__)


@pages.app_template_global()
def utc(seconds: float) -> str:
    """Wall seconds as UTC text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@pages.get("/settings")
def page() -> flask.Response:
    return live(_page, words_of("inference", "poller"), _sessions())


@pages.post("/settings/sign-out")
def sign_out() -> flask.typing.ResponseReturnValue:
    operator().sign_out_all()
    return flask.redirect("/login", 303)


@pages.post("/settings/login-link")
def login_link() -> str:
    """A new one-time link, shown this once."""
    worker = flask.current_app.extensions["worker"]
    link = operator().login_link(page_url(worker.settings))
    return flask.render_template(
        "link.html", link=link, here=flask.request.host_url.rstrip("/") + "/login#" + link.split("#")[1]
    )


def _page() -> str:
    worker = flask.current_app.extensions["worker"]
    since, changes = shown.changes(worker.queue.database)
    return flask.render_template(
        "settings.html",
        settings=setting.all_of(worker.settings),
        since=since,
        changes=changes,
        versions=versions(worker.settings, said()),
        sessions=_sessions(),
    )


def _sessions() -> list[dict[str, Any]]:
    """Who is logged in, without the hashes; `here`: this very log-in."""
    worker = flask.current_app.extensions["worker"]
    mine = worker.access.hashed(flask.g.session, flask.g.role) if flask.g.session else ""
    rows = worker.control.sessions()
    return [{**{name: row[name] for name in row if name != "hash"}, "here": row["hash"] == mine} for row in rows]
