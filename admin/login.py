"""Log in and out: by password, by the token under DATA_DIR, or by the code of a one-time link."""

from __future__ import annotations

import logging

from flask import Blueprint, abort, current_app, g, make_response, redirect, render_template, request
from werkzeug.exceptions import TooManyRequests
from werkzeug.wrappers import Response

from admin.access import LONGEST_S
from admin.panel import panel
from admin.security import local_path

log = logging.getLogger(__name__)

page = Blueprint("login", __name__)


@page.get("/login")
def show() -> Response | str:
    """The form; straight on for who is logged in already."""
    target = local_path(request.args.get("next", "/"))
    if g.session is not None:
        return redirect(target, 303)
    return _form(target)


@page.post("/login")
def enter() -> Response:
    """Check what was typed, after the limit on tries."""
    own, address = panel(), request.remote_addr or "unknown"
    if wait_s := own.limiter.wait_s(address):
        raise TooManyRequests(f"Too many tries. Wait {wait_s} seconds, then try again.", retry_after=wait_s)
    target = local_path(request.form.get("next", "/"))
    if not own.access.opens(request.form.get("secret", "").strip()):
        own.control.note(f"web:{address}", "log in", None, None, "refused")
        log.warning("a log-in from %s was refused", address)
        return make_response(_form(target, "That is not right. A code works once, for 15 minutes; ask for a new one."), 403)
    session_id = own.access.begin(address, request.headers.get("User-Agent", ""))
    own.control.note(f"web:{own.access.hashed(session_id)[:8]}", "log in", address, None, "done")
    response = redirect(target, 303)
    response.set_cookie(
        current_app.config["COOKIE"],
        session_id,
        max_age=LONGEST_S,
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )
    return response


@page.post("/logout")
def leave() -> Response:
    """End this log-in."""
    if g.session is None:
        abort(401)
    panel().access.end(g.session)
    response = redirect("/login", 303)
    response.delete_cookie(current_app.config["COOKIE"])
    return response


def _form(target: str, wrong: str = "") -> str:
    return render_template("login.html", target=target, wrong=wrong, has_password=panel().configuration.password is not None)
