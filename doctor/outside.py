"""The servers the worker talks to: orchestrator and store. Nothing is claimed, reported or stored, and no key is sent."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from doctor.finding import Finding, Situation

TIMEOUT_S = 8.0
#: How far the clocks may differ: logs and timelines of several machines are compared, and certificates have dates.
MAX_SKEW_S = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def orchestrator(now: Situation) -> list[Finding]:
    """Its name, certificate and clock. Any HTTP answer will do."""
    url = now.settings.orchestrator_url
    if url is None:
        return [Finding(name="orchestrator", level="ok", said="none is set: the worker is standalone")]
    try:
        status, date, took_s = _asked(url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        said, do = _why(error, url)
        return [Finding(name="orchestrator", level="fail", said=f"{url}: {said}", do=do)]
    found = [_reached(now, url, f"{url} answers {status} in {1000 * took_s:.0f} ms")]
    skew_s = _skew_s(date)
    if skew_s is not None:
        found.append(_clock(skew_s))
    return found


def _reached(now: Situation, url: str, said: str) -> Finding:
    parts = urlsplit(url)
    if not now.settings.INTERNAL_API_KEY:
        return Finding(
            name="orchestrator", level="warn", said=f"{said}; no key is set", do="set INTERNAL_API_KEY if it requires one"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        do = "use an https:// address: over http the key is sent in clear text"
        return Finding(name="orchestrator", level="warn", said=said, do=do)
    return Finding(name="orchestrator", level="ok", said=f"{said}; the first heartbeat shows whether it accepts the key")


def _asked(url: str) -> tuple[int, str | None, float]:
    """Status, Date and duration of one request, through the environment's proxy, if any."""
    request = urllib.request.Request(url + "/", headers={"User-Agent": "worker doctor"})  # noqa: S310 - settings let only http(s) in
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, answer.headers.get("Date"), time.monotonic() - began
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Date"), time.monotonic() - began


def _why(error: Exception, url: str) -> tuple[str, str]:
    """What went wrong, and what to do."""
    cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception) else error
    host = urlsplit(url).hostname
    if isinstance(cause, socket.gaierror):
        return f"the name {host} does not resolve ({cause.strerror})", "check the address and the machine's DNS"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate was rejected: {cause.verify_message}",
            "check its certificate, and this machine's clock",
        )
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason})", "check whether it should be http://, or a proxy is in between"
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s", "check the firewall and proxy"
    return f"no connection ({getattr(cause, 'strerror', None) or cause})", "check that it is running, and the port"


def _skew_s(date: str | None) -> float | None:
    """How far this machine's clock is ahead of the server's, in seconds; None if it sent no date."""
    try:
        said = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return (datetime.now(UTC) - said.replace(tzinfo=said.tzinfo or UTC)).total_seconds()


def _clock(skew_s: float) -> Finding:
    said = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the orchestrator's"
    if abs(skew_s) > MAX_SKEW_S:
        return Finding(name="clock", level="warn", said=said, do="synchronize the clocks (NTP)")
    return Finding(name="clock", level="ok", said=said)


def store(now: Situation) -> list[Finding]:
    """Where finished videos go. Inconsistent settings have been rejected before this."""
    settings = now.settings
    if settings.stores_in_b2:
        realm = "" if settings.B2_REALM == "production" else f", realm {settings.B2_REALM}"
        said = f"B2 bucket {settings.B2_BUCKET_NAME}, under {settings.B2_PREFIX}{realm}; the keys are set"
        return [Finding(name="store", level="ok", said=said)]
    said = f"no B2 keys are set: finished videos stay in {settings.data_dir / 'outputs'}"
    if settings.mode == "queue":
        return [Finding(name="store", level="ok", said=said)]
    do = "set B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME: an orchestrator's customers cannot reach this folder"
    return [Finding(name="store", level="warn", said=said, do=do)]
