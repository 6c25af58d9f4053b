"""Who may see and do what: every request passes here before a page does.

A cookie holds a random id, the database only its hash mixed with the secret: a new password ends every session. A cookie
travels to every port of a host, and a browser on plain http over a LAN says nothing about who asks, so an unsafe request
needs both its Origin to be this very address and a token that only our own pages carry. Names can be rebound to this machine
by a stranger's DNS, so only addresses and localhost are answered.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import flask
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from admin import Worker

IDLE_S = 12 * 3600.0
LONGEST_S = 7 * 24 * 3600.0
TOUCH_EVERY_S = 300.0
#: Log-ins a minute: of one address, and of all.
LOGINS_EACH, LOGINS_ALL = 10, 60
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


class Limiter:
    """At most so many log-ins a minute, counted before any password is looked at."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._seen and self._seen[0][0] < now - 60:
                self._seen.popleft()
            mine = sum(1 for _, other in self._seen if other == address)
            if mine >= LOGINS_EACH or len(self._seen) >= LOGINS_ALL:
                return False
            self._seen.append((now, address))
            return True


def protect(app: flask.Flask, worker: Worker) -> None:
    """Put the checks before, and the headers after, every page of `app`."""
    app.extensions["limiter"] = Limiter()

    @app.before_request
    def check() -> flask.typing.ResponseReturnValue | None:
        if not _is_our_host(flask.request.host, worker.settings.ADMIN_HOST):
            return _refused(421, "Open this page by its address or as localhost; other names are not answered.")
        flask.g.session = _session(worker)
        if flask.request.method not in SAFE and flask.request.headers.get("Origin") != flask.request.host_url.rstrip("/"):
            return _refused(403, "This request came from another page. Reload and try again.")
        if flask.request.endpoint in OPEN:
            return None
        if flask.g.session is None:
            return flask.redirect(flask.url_for("login.form"), 303)
        given = flask.request.form.get("csrf") or flask.request.headers.get("X-CSRF") or ""
        if flask.request.method not in SAFE and not hmac.compare_digest(given, csrf(flask.g.session)):
            return _refused(403, "This form is out of date. Reload the page and try again.")
        return None

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if flask.request.endpoint != "static":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> flask.typing.ResponseReturnValue:
        words = {404: "There is no such page or job on this worker.", 405: "That cannot be done this way."}
        return _refused(error.code or 500, words.get(error.code or 500, error.name))

    app.jinja_env.globals["csrf"] = lambda: csrf(flask.g.session) if flask.g.get("session") else ""


def enter(worker: Worker, given: str) -> str | None:
    """A new session's id if what was given is the secret or the one-time code; None if not."""
    right = hmac.compare_digest(given.encode(), worker.secret.encode()) or use_code(worker.settings.data_dir, given)
    if not right:
        return None
    session = secrets.token_urlsafe(32)
    agent = flask.request.headers.get("User-Agent", "")
    worker.control.begin_session(_hash(worker, session), flask.request.remote_addr or "", agent, time.time())
    return session


def leave(worker: Worker) -> None:
    if flask.g.session:
        worker.control.end_sessions(_hash(worker, flask.g.session))


def cookie_name(worker: Worker) -> str:
    """Of this worker alone: several may run on one host, and cookies ignore ports."""
    return "wadm_" + hashlib.sha256(worker.settings.worker_id.encode()).hexdigest()[:8]


def csrf(session: str) -> str:
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


def actor() -> str:
    """Who acts, for the audit trail: enough of the session to tell two apart, too little to use."""
    return "web:" + hashlib.sha256(flask.g.session.encode()).hexdigest()[:8]


def secret_of(password: str | None, data_dir: Path) -> str:
    """What lets an operator in: the password, else a token of our own, made once and kept for the owner's eyes only."""
    if password:
        return password
    file = data_dir / "admin_token"
    try:
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    return file.read_text().strip()


def make_code(data_dir: Path) -> str:
    """A log-in code that works once, for 15 minutes; only its hash is kept."""
    code = "-".join(secrets.token_hex(2).upper() for _ in range(3))
    file = data_dir / "admin_code"
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(f"{hashlib.sha256(code.encode()).hexdigest()} {time.time() + 900:.0f}")
    return code


def use_code(data_dir: Path, given: str) -> bool:
    """Whether this is the code that was made, in time and for the first time."""
    file = data_dir / "admin_code"
    try:
        digest, expires = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return False
    if time.time() > float(expires) or not hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), digest):
        return False
    try:
        file.unlink()  # who removes it has used it
    except FileNotFoundError:
        return False
    return True


def _session(worker: Worker) -> str | None:
    session = flask.request.cookies.get(cookie_name(worker))
    if not session:
        return None
    row, now = worker.control.session(_hash(worker, session)), time.time()
    if row is None or now - row["seen_at"] > IDLE_S or now - row["created_at"] > LONGEST_S:
        return None
    if now - row["seen_at"] > TOUCH_EVERY_S:
        worker.control.touch_session(_hash(worker, session), now)
    return session


def _hash(worker: Worker, session: str) -> str:
    return hmac.new(worker.secret.encode(), session.encode(), hashlib.sha256).hexdigest()


def _is_our_host(host: str, bound: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in ("localhost", bound):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _refused(status: int, words: str) -> flask.typing.ResponseReturnValue:
    return flask.render_template("refused.html", status=status, words=words), status
