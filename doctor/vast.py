"""What the Internet can reach on Vast, which gives each port another number on an address that several machines share.

Reads variables alone. A shell over ssh may lack them, as Vast gives them to the container's own start.
"""

from __future__ import annotations

from collections.abc import Mapping

import answers
from doctor.finding import Finding, Situation
from doctor.listeners import is_public, page_port
from settings import child_environment

#: What the variables begin with; the port as the container has it follows, the value is the port outside.
PORT = "VAST_TCP_PORT_"


def vast(now: Situation) -> list[Finding]:
    """The addresses at which the Internet comes in, and what should not be open there; nothing elsewhere."""
    environ = child_environment()
    urls = {int(name[len(PORT) :]): _outside(environ, value) for name, value in environ.items() if _is_port(name)}
    if not urls:
        return []
    settings, started = now.settings, answers.started(now.settings)
    http_port, page = started.get("http_port", settings.HTTP_PORT), page_port(settings, started)
    words = {http_port: " (jobs and probes)", page: " (the admin page)"}
    lines = tuple(f"port {port}{words.get(port, '')} is {urls[port]}" for port in sorted(urls))
    found = [Finding(name="Vast", level="ok", said=f"ports that the Internet can reach: {len(urls)}", lines=lines)]
    if http_port in urls and not settings.API_TOKEN:
        said = f"anybody may hand in jobs at {urls[http_port]}/generate"
        found.append(Finding(name="Vast", level="warn", said=said, do="set API_TOKEN, or do not map the port"))
    if page in urls and not is_public(settings.ADMIN_HOST):
        said = f"the admin page's port is mapped, but it listens inside only; ssh -L {page}:127.0.0.1:{page} is the way in"
        found.append(Finding(name="Vast", level="ok", said=said))
    elif page in urls and not settings.ADMIN_TRUSTED_PROXY:
        said = f"{urls[page]} goes over the Internet as it is, with the password and the log-in"
        do = "go in through ssh -L, or put a proxy with TLS before it and set ADMIN_TRUSTED_PROXY"
        found.append(Finding(name="Vast", level="warn", said=said, do=do))
    return found


def _is_port(name: str) -> bool:
    return name.startswith(PORT) and name[len(PORT) :].isdigit()


def _outside(environ: Mapping[str, str], port: str) -> str:
    """A mapped port as the Internet has it."""
    address = environ.get("PUBLIC_IPADDR", "").strip()
    return f"http://{f'[{address}]' if ':' in address else address or 'THIS-MACHINE'}:{port}"
