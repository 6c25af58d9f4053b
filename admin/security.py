"""Who may see and do what: every request passes here before a page does.

A cookie travels to every port of a host, and a browser on plain http over a LAN says nothing about who asks, so an unsafe
request needs both its Origin to be this very address and a token that only our own pages carry. Names can be rebound to this
machine by a stranger's DNS, so only addresses and localhost are answered.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import flask
from werkzeug.exceptions import HTTPException, InternalServerError

if TYPE_CHECKING:
    from admin import Worker

log = logging.getLogger(__name__)

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = frozenset({"login.form", "login.enter", "static", "login.healthz"})

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def protect(app: flask.Flask, worker: Worker) -> None:
    """Put the checks before, and the headers after, every page of `app`."""

    @app.before_request
    def check() -> flask.typing.ResponseReturnValue | None:
        request, unsafe = flask.request, flask.request.method not in SAFE
        if not _is_our_host(request.host, worker.settings.ADMIN_HOST):
            return _refused(421, "Open this page by its address or as localhost; other names are not answered.")
        if unsafe and request.headers.get("Origin") != request.host_url.rstrip("/"):
            return _refused(403, "This request came from another page. Reload and try again.")
        session = request.cookies.get(cookie_name(worker), "")
        flask.g.session = session if session and worker.access.holds(session) else None
        if request.endpoint in OPEN:
            return None
        if flask.g.session is None:
            return flask.redirect(_login_url(), 303)
        if unsafe and not hmac.compare_digest(request.form.get("csrf", "").encode(), csrf(session).encode()):
            return _refused(403, "This form is out of date. Reload the page and try again.")
        return None

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if flask.request.endpoint != "static":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.register_error_handler(HTTPException, _explained)
    app.jinja_env.globals["csrf"] = lambda: csrf(flask.g.session) if flask.g.get("session") else ""


def cookie_name(worker: Worker) -> str:
    """Of this worker alone: several may run on one host, and cookies ignore ports."""
    return "wadm_" + hashlib.sha256(worker.settings.worker_id.encode()).hexdigest()[:8]


def csrf(session: str) -> str:
    """What the forms of a log-in carry, and no other site can know."""
    return hmac.new(session.encode(errors="replace"), b"csrf", hashlib.sha256).hexdigest()


def actor() -> str:
    """Who acts, for the audit trail: enough of the session to tell two apart, too little to use."""
    return "web:" + hashlib.sha256(flask.g.session.encode()).hexdigest()[:8]


def local_path(target: str) -> str:
    """The path to go on to after a log-in; the first page if it would lead anywhere else."""
    strange = any(ord(letter) < 33 or letter == "\\" for letter in target)
    return "/" if strange or not target.startswith("/") or target.startswith("//") or urlsplit(target).netloc else target


def _login_url() -> str:
    target = flask.request.full_path.rstrip("?")
    return "/login" if target == "/" or flask.request.method not in SAFE else f"/login?next={quote(target, safe='/')}"


def _is_our_host(host: str, bound: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in ("localhost", bound):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _explained(error: HTTPException) -> flask.typing.ResponseReturnValue:
    words = {404: "There is no such page or job on this worker.", 405: "That cannot be done this way."}
    if isinstance(error, InternalServerError):  # Flask has logged the traceback itself
        mark = secrets.token_hex(4)
        log.error("page error %s at %s", mark, flask.request.path)
        words[500] = f"This page could not be made (error {mark}; worker logs says more). The worker itself may be well."
    code = error.code or 500
    page = flask.make_response(*_refused(code, words.get(code) or error.description or error.name))
    for name, value in error.get_headers():
        if name in ("Allow", "Content-Range", "Retry-After"):
            page.headers[name] = value
    return page


def _refused(status: int, words: str) -> tuple[str, int]:
    return flask.render_template("refused.html", status=status, words=words), status
