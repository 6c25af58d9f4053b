"""The Settings page: what the worker was started with, what it is made of, who is logged in. It changes no setting but the
token that the worker made itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import flask
from markupsafe import Markup

from admin import shown
from admin.actions import operator
from admin.live import live, said, words_of
from answers import page_url
from entrance import kept_token
from support import setting
from support.versions import versions

pages = flask.Blueprint("config", __name__)

#: What must be typed before the token is replaced.
CONFIRM = "replace"


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


@pages.post("/settings/token")
def replace_token() -> flask.typing.ResponseReturnValue:
    """A new token in place of the worker's own; shown this once. This log-in is over like all others."""
    settings = flask.current_app.extensions["worker"].settings
    if settings.ADMIN_PASSWORD:
        flask.abort(409, "The password is ADMIN_PASSWORD: change it in the worker's environment and restart the worker.")
    if flask.request.form.get("confirm", "").strip().lower() != CONFIRM:
        flask.abort(400, f"Nothing was changed: type {CONFIRM} to replace the token.")
    operator().replace_token(settings.data_dir)
    flask.g.session = flask.g.role = None
    return flask.render_template("token.html", token=Markup.escape(kept_token(settings.data_dir)))  # Markup: it is not masked


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
        confirm=CONFIRM,
        given=bool(worker.settings.ADMIN_PASSWORD),
    )


def _sessions() -> list[dict[str, Any]]:
    """Who is logged in, without the hashes; `here`: this very log-in."""
    worker = flask.current_app.extensions["worker"]
    mine = worker.access.hashed(flask.g.session, flask.g.role) if flask.g.session else ""
    rows = worker.control.sessions()
    return [{**{name: row[name] for name in row if name != "hash"}, "here": row["hash"] == mine} for row in rows]
