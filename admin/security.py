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
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import flask
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.http import HTTP_STATUS_CODES

from jobqueue.database import ERRORS

if TYPE_CHECKING:
    from admin import Worker

log = logging.getLogger(__name__)

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Where programs ask instead of people.
API = "/api/"
OPEN = frozenset({"login.form", "login.enter", "static", "login.healthz"})

#: Pages that may be sent more than the usual bytes, by endpoint.
LARGE: dict[str | None, Callable[[Worker], int]] = {}

_HOSTS = "Add others to ADMIN_ALLOWED_HOSTS."
_TOKEN = "Send it as Authorization: Bearer; it is ADMIN_PASSWORD, or the content of DATA_DIR/admin_token."  # noqa: S105

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
        request = flask.request
        flask.g.session = flask.g.role = None
        if not _is_our_host(request.host, worker.settings.ADMIN_HOST, worker.settings.ADMIN_ALLOWED_HOSTS):
            return refused(421, "Open this page by IP address or as localhost; other host names are rejected.", _HOSTS)
        if request.endpoint in LARGE:
            request.max_content_length = LARGE[request.endpoint](worker)
        if request.path.startswith(API) and "Authorization" in request.headers:
            return _check_token(worker)
        return _check_log_in(worker)

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if flask.request.endpoint != "static":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.register_error_handler(HTTPException, _explained)
    for kind in ERRORS:
        app.register_error_handler(kind, _no_queue)
    app.jinja_env.globals["can_act"] = lambda: flask.g.get("role") == "act"
    app.jinja_env.globals["csrf"] = lambda: csrf(flask.g.session) if flask.g.get("session") else ""


def _check_token(worker: Worker) -> flask.typing.ResponseReturnValue | None:
    """A program with a token: no cookie came with it, so no other site can have sent it."""
    request, address = flask.request, flask.request.remote_addr or ""
    if worker.limiter.is_full(address):
        return refused(429, "Too many attempts; wait a minute.")
    given = request.authorization.token if request.authorization and request.authorization.type == "bearer" else None
    flask.g.role = worker.access.role(given) if given else None
    if flask.g.role is None:
        worker.limiter.allows(address)
        note_refused(worker, f"api@{address}", address)
        return refused(401, "Wrong token.", _TOKEN)
    return _check_role()


def note_refused(worker: Worker, who: str, address: str) -> None:
    """Say in the log that a log-in was refused, and in the audit trail as far as it has a row there."""
    log.warning("a login from %s was refused", address)
    if (said := worker.refusals.said(time.monotonic())) is not None:
        worker.control.note(who, "log in", address, None, said)


def _check_log_in(worker: Worker) -> flask.typing.ResponseReturnValue | None:
    """A browser with a cookie, which other sites can make it send: so every act must come from a page of ours."""
    request, unsafe = flask.request, flask.request.method not in SAFE
    if unsafe and request.headers.get("Origin") != request.host_url.rstrip("/"):
        return refused(403, "This request came from another page. Reload and try again.")
    session = request.cookies.get(cookie_name(worker), "")
    flask.g.role = worker.access.holds(session) if session else None
    flask.g.session = session if flask.g.role else None
    if request.endpoint in OPEN:
        return None
    if flask.g.role is None:
        return refused(401, "Log in first.", _TOKEN) if request.path.startswith(API) else flask.redirect(_login_url(), 303)
    if unsafe:
        given = request.headers.get("X-CSRF") or request.form.get("csrf", "")
        if not hmac.compare_digest(given.encode(errors="replace"), csrf(session).encode()):
            return refused(403, "This form is out of date. Reload the page and try again.")
    return _check_role()


def _check_role() -> flask.typing.ResponseReturnValue | None:
    if flask.g.role == "look" and flask.request.method not in SAFE and flask.request.endpoint != "login.leave":
        return refused(403, "This session is read-only.", "Log in with the worker's own password or token.")
    return None


def cookie_name(worker: Worker) -> str:
    """Of this worker alone: several may run on one host, and cookies ignore ports."""
    return "wadm_" + hashlib.sha256(worker.id.encode()).hexdigest()[:8]


def csrf(session: str) -> str:
    """What the forms of a log-in carry, and no other site can know."""
    return hmac.new(session.encode(errors="replace"), b"csrf", hashlib.sha256).hexdigest()


def actor() -> str:
    """Who acts, for the audit trail, and from where: enough of the session to tell two apart, too little to use."""
    address = flask.request.remote_addr or "?"
    if flask.g.session is None:
        return f"api@{address}"
    return f"web:{hashlib.sha256(flask.g.session.encode()).hexdigest()[:8]}@{address}"


def local_path(target: str) -> str:
    """The path to go on to after a log-in; the first page if it would lead anywhere else."""
    strange = any(ord(letter) < 33 or letter == "\\" for letter in target)
    return "/" if strange or not target.startswith("/") or target.startswith("//") or urlsplit(target).netloc else target


def _login_url() -> str:
    target = flask.request.full_path.rstrip("?")
    return "/login" if target == "/" or flask.request.method not in SAFE else f"/login?next={quote(target, safe='/')}"


def _is_our_host(host: str, bound: str, allowed: tuple[str, ...]) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in ("localhost", bound) or any(_fits(name.lower(), pattern) for pattern in allowed):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _fits(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _explained(error: HTTPException) -> flask.typing.ResponseReturnValue:
    words = {404: "No such page or job on this worker.", 405: "Method not allowed."}
    if isinstance(error, InternalServerError):  # Flask has logged the traceback itself
        mark = secrets.token_hex(4)
        log.error("page error %s at %s", mark, flask.request.path)
        words[500] = f"This page could not be rendered (error {mark}; see worker logs). The worker itself may be fine."
    code, said = error.code or 500, error.description
    if code == 413:
        words[413] = f"The request is larger than this page accepts ({(flask.request.max_content_length or 0) / 1e6:.1f} MB)."
    ours = said if said and said != type(error).description else None
    page = flask.make_response(*refused(code, ours or words.get(code) or said or error.name))
    for name, value in error.get_headers():
        if name in ("Allow", "Content-Range", "Retry-After"):
            page.headers[name] = value
    return page


def _no_queue(error: Exception) -> flask.typing.ResponseReturnValue:
    """The queue's file cannot be read or written now. This page may not ask it again, not even for the head."""
    worker = flask.current_app.extensions["worker"]
    log.error("the queue could not be used for %s: %s", flask.request.path, error)
    flask.g.session = flask.g.role = None
    words = f"The queue is unavailable ({worker.settings.database}: {error}). The worker itself may still be running."
    return refused(503, words, "On the machine, see worker status and worker logs. This page retries automatically.")


def refused(status: int, words: str, hint: str = "") -> tuple[Any, int, dict[str, str]]:
    """An answer that says no: a page for people, or the API's own shape."""
    headers = {"Retry-After": "5"} if status in (429, 503) else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if not flask.request.path.startswith(API):
        return flask.render_template("refused.html", status=status, words=words, hint=hint), status, headers
    mask = flask.current_app.extensions["worker"].mask
    error = {
        "code": HTTP_STATUS_CODES.get(status, "error").lower().replace(" ", "_"),
        "message": mask(words),
        "hint": mask(hint),
    }
    return {"error": error}, status, headers
