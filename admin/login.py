"""Log-in by password or one-time link, log-out, and the page's own health."""

from __future__ import annotations

import flask

from admin import security
from jobqueue.control import MAX_SESSION_S

pages = flask.Blueprint("login", __name__)


@pages.get("/login")
def form() -> flask.typing.ResponseReturnValue:
    target = security.local_path(flask.request.args.get("next", "/"))
    return flask.redirect(target, 303) if flask.g.session else flask.render_template("login.html", target=target)


@pages.post("/login")
def enter() -> flask.typing.ResponseReturnValue:
    worker, request = flask.current_app.extensions["worker"], flask.request
    target, address = security.local_path(request.form.get("next", "/")), request.remote_addr or ""
    if not worker.limiter.allows(address):
        failed = "Too many attempts; wait a minute."
        return flask.render_template("login.html", failed=failed, target=target), 429, {"Retry-After": "60"}
    given, agent = request.form.get("password", "").strip(), request.headers.get("User-Agent", "")
    session = worker.access.enter(given, address, agent)
    if session is None:
        security.note_refused(worker, "web", address)
        failed = "Wrong password, or the code was used or is older than 15 minutes."
        return flask.render_template("login.html", failed=failed, target=target), 403
    worker.control.note("web", "log in", address, None, "done")
    response = flask.redirect(target, 303)
    name, age_s = security.cookie_name(worker), int(MAX_SESSION_S)
    response.set_cookie(name, session, max_age=age_s, httponly=True, samesite="Lax", secure=request.is_secure)
    return response


@pages.post("/logout")
def leave() -> flask.typing.ResponseReturnValue:
    worker = flask.current_app.extensions["worker"]
    worker.access.leave(flask.g.session)
    response = flask.redirect("/login", 303)
    response.delete_cookie(security.cookie_name(worker))
    return response


@pages.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
