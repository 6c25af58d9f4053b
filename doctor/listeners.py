"""What other machines can reach: the listening sockets and their addresses, and the page's password.

Reads the kernel's list of sockets; connects to nothing. Other programs are listed, not judged: on a private machine they
are none of the worker's business.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

import answers
from doctor.finding import Finding, Situation
from settings import Settings

#: Other programs that are listed individually.
MAX_LINES = 10
#: The minimum length of a password that others can try, what does not count in it, and how many different characters it
#: must have besides.
MIN_PASSWORD = 16
WEAK = re.compile("password|passwort|admin|changeme|letmein|qwerty|secret|worker|12345678|abcdefgh", re.IGNORECASE)
MIN_CHARACTERS = 8


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening TCP port. program: ours by name, "" if it is not ours; process: its name if we may see it."""

    address: str
    port: int
    program: str
    process: str

    @property
    def place(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def listeners(now: Situation) -> list[Finding]:
    """Ports of ours that other machines can reach unnecessarily; and, as a note, those of other programs."""
    found = [one for one in _listening(_ours(now)) if is_public(one.address)]
    meant = _ports(now)
    astray = [one for one in found if one.program and one.port not in meant]
    others = sorted({f"{one.place} {one.process}".rstrip() for one in found if not one.program})
    do = "the worker does not need this port: make the engine or library that opened it listen on 127.0.0.1"
    warned = [
        Finding(name="listeners", level="warn", said=f"{one.program} listens on {one.place}, open to other machines", do=do)
        for one in astray
    ]
    open_ = ", ".join(sorted({one.place for one in found if one.program and one.port in meant})) or "nothing"
    said = f"open to other machines: {open_}" + (f"; {len(others)} of other programs" if others else "")
    lines = [*others[:MAX_LINES], *([f"and {len(others) - MAX_LINES} more"] if len(others) > MAX_LINES else [])]
    return [*warned, Finding(name="listeners", level="ok", said=said, lines=tuple(lines))]


def page(now: Situation) -> list[Finding]:
    """Where the admin page can be reached, and whether its password is strong enough for that."""
    settings, started = now.settings, answers.started(now.settings) if now.programs else {}
    if started.get("page", settings.admin_enabled) in (None, False):
        return [Finding(name="page", level="ok", said="the admin page is off")]
    port = page_port(settings, started)
    addresses = {one.address for one in _listening(_ours(now)) if one.port == port and one.program} or {settings.ADMIN_HOST}
    if not any(map(is_public, addresses)):
        said = f"port {port}, reachable from this machine only; from another: ssh -L {port}:127.0.0.1:{port}"
        return [Finding(name="page", level="ok", said=said)]
    said = f"port {port} is reachable from other machines"
    weak = [name for name in ("ADMIN_PASSWORD", "ADMIN_VIEW_PASSWORD") if is_weak(getattr(settings, name))]
    if weak:
        do = "use a long random one (openssl rand -base64 24), or leave ADMIN_PASSWORD empty: the worker generates one"
        return [Finding(name="page", level="warn", said=f"{said}, and {' and '.join(weak)} can be guessed", do=do)]
    kept = started.get("page_secret", "admin_token") == "ADMIN_PASSWORD" and not settings.ADMIN_PASSWORD
    said += "; its password is not visible from this shell" if kept else "; its password is strong"
    how = "" if settings.ADMIN_TRUSTED_PROXY else "; no TLS: use it on trusted networks only, otherwise through ssh or a proxy"
    return [Finding(name="page", level="ok", said=said + how)]


def is_public(address: str) -> bool:
    """Whether other machines may reach this address. Names count as for ADMIN_HOST."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address != "localhost"
    return not (getattr(found, "ipv4_mapped", None) or found).is_loopback


def is_weak(password: str | None) -> bool:
    """Whether a password is easy to guess. None is not weak: it lets nobody in."""
    return password is not None and (len(password) < MIN_PASSWORD or len(set(WEAK.sub("", password))) < MIN_CHARACTERS)


def page_port(settings: Settings, started: Mapping[str, object]) -> int:
    """The page's port, of the running worker or of one started with these settings."""
    return urlsplit(str(started.get("page") or "")).port or settings.ADMIN_PORT


def _ports(now: Situation) -> set[int]:
    """The worker's own ports, running or as configured."""
    started = answers.started(now.settings) if now.programs else {}
    return {started.get("http_port", now.settings.HTTP_PORT), page_port(now.settings, started)}


def _ours(now: Situation) -> dict[int, str]:
    """The worker's processes: its programs, and what they started."""
    found = {}
    for program in now.programs or ():
        if program.pid is None:
            continue
        found[program.pid] = program.name
        with contextlib.suppress(psutil.Error):
            found |= {child.pid: program.name for child in psutil.Process(program.pid).children(recursive=True)}
    return found


def _listening(ours: Mapping[int, str]) -> list[Listener]:
    """Every listening TCP socket of this container or machine. The owner is visible only for processes of the same user."""
    try:
        found = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):
        return []
    places: list[tuple[Any, int | None]] = [(one.laddr, one.pid) for one in found]
    return [Listener(address=at.ip, port=at.port, program=ours.get(pid or 0, ""), process=_name(pid)) for at, pid in places]


def _name(pid: int | None) -> str:
    if pid is None:
        return ""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""
