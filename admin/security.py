"""The gate before every page: known host, same origin, logged in, a form of ours; and the headers after it.

SameSite and Sec-Fetch-Site are not enough: cookies ignore ports, and browsers send no Sec-Fetch headers to plain http on a
local network. What holds everywhere is `Origin`, compared whole, and a token in each form.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import quote, urlsplit

from flask import Flask, Response, abort, g, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from admin.panel import Panel

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: Endpoints that answer without a log-in.
OPEN = ("login.show", "login.enter", "static", "health.show")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; media-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def install(app: Flask, panel: Panel) -> None:
    """Put the gate before all routes of the application and the headers after them."""
    name = cookie_name(panel.configuration.worker_id)
    app.config["COOKIE"] = name
    allowed = urlsplit(panel.configuration.page_url).hostname or ""

    def gate() -> BaseResponse | None:
        if not _is_known_host(request.host, allowed):
            abort(421, "This address is not one of this page's own. Open it by its IP address, or as localhost.")
        changes = request.method not in SAFE_METHODS
        if changes and request.headers.get("Origin") != request.host_url.rstrip("/"):
            abort(403, "This request came from another site. Open the page itself and try there.")
        session_id = request.cookies.get(name, "")
        g.session = session_id if session_id and panel.access.is_valid(session_id) else None
        if request.endpoint in OPEN:
            return None
        if g.session is None:
            return _to_login()
        sent = request.form.get("token", "") if changes else ""
        if changes and not hmac.compare_digest(sent.encode(), panel.access.form_token(g.session).encode()):
            abort(403, "This form is not of this log-in. Load the page again and try once more.")
        return None

    def headers(response: Response) -> Response:
        for header, value in HEADERS.items():
            response.headers.setdefault(header, value)
        if request.endpoint != "static":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.before_request(gate)
    app.after_request(headers)


def cookie_name(worker_id: str) -> str:
    """Several workers on one host share its cookies, so each has a name of its own."""
    return f"wadm_{hashlib.sha256(worker_id.encode()).hexdigest()[:8]}"


def local_path(target: str) -> str:
    """The path to go on to after a log-in; the first page if it would lead anywhere else."""
    leads_away = not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(c) < 33 or c == "\\" for c in target)
    return "/" if leads_away or urlsplit(target).netloc or target.startswith("/login") else target


def _to_login() -> BaseResponse:
    if request.method not in SAFE_METHODS or request.headers.get("X-Poll"):
        abort(401, "You are not logged in any more. Log in, then try again.")
    target = request.full_path.rstrip("?")
    return redirect("/login" if target == "/" else f"/login?next={quote(target)}", 303)


def _is_known_host(host: str, allowed: str) -> bool:
    """An IP address cannot be rebound to another machine by somebody's name server; a name can."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", allowed) and name:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
