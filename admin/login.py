"""Log-in by password or one-time link, log-out, and the page's own health."""

from __future__ import annotations

import flask

from admin import security

pages = flask.Blueprint("login", __name__)


@pages.get("/login")
def form() -> str:
    return flask.render_template("login.html", failed=False)


@pages.post("/login")
def enter() -> flask.typing.ResponseReturnValue:
    worker = flask.current_app.extensions["worker"]
    if not flask.current_app.extensions["limiter"].allows(flask.request.remote_addr or ""):
        return flask.render_template("login.html", failed="Too many tries; wait a minute."), 429, {"Retry-After": "60"}
    session = security.enter(worker, flask.request.form.get("password", "").strip())
    if session is None:
        worker.control.note("web", "log in", flask.request.remote_addr, None, "refused")
        return flask.render_template("login.html", failed="That is not the password, or the code was used already."), 403
    worker.control.note("web", "log in", flask.request.remote_addr, None, "done")
    response = flask.redirect(flask.url_for("overview.page"), 303)
    response.set_cookie(
        security.cookie_name(worker),
        session,
        max_age=int(security.LONGEST_S),
        httponly=True,
        samesite="Lax",
        secure=flask.request.is_secure,
    )
    return response


@pages.post("/logout")
def leave() -> flask.typing.ResponseReturnValue:
    worker = flask.current_app.extensions["worker"]
    security.leave(worker)
    response = flask.redirect(flask.url_for("login.form"), 303)
    response.delete_cookie(security.cookie_name(worker))
    return response


@pages.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
