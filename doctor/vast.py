"""What the Internet can reach on Vast, which maps each port to another number on an address shared by several machines.

Reads only variables. An ssh shell may lack them: Vast sets them for the container's entry point.
"""

from __future__ import annotations

from collections.abc import Mapping

import answers
from doctor.finding import Finding, Situation
from doctor.listeners import is_public, page_port
from settings import child_environment

#: Prefix of the variables; the container's port follows, the value is the external port.
PORT = "VAST_TCP_PORT_"


def vast(now: Situation) -> list[Finding]:
    """The public addresses, and what should not be open there; nothing on other providers."""
    environ = child_environment()
    urls = {int(name[len(PORT) :]): _outside(environ, value) for name, value in environ.items() if _is_port(name)}
    if not urls:
        return []
    settings, started = now.settings, answers.started(now.settings)
    http_port, page = started.get("http_port", settings.HTTP_PORT), page_port(settings, started)
    words = {http_port: " (jobs and probes)", page: " (the admin page)"}
    lines = tuple(f"port {port}{words.get(port, '')} is {urls[port]}" for port in sorted(urls))
    found = [Finding(name="Vast", level="ok", said=f"ports reachable from the Internet: {len(urls)}", lines=lines)]
    if http_port in urls and not settings.API_TOKEN:
        said = f"anyone can submit jobs at {urls[http_port]}/generate"
        found.append(Finding(name="Vast", level="warn", said=said, do="set API_TOKEN, or do not map the port"))
    if page in urls and not is_public(settings.ADMIN_HOST):
        said = f"the admin page's port is mapped, but the page listens locally only; use ssh -L {page}:127.0.0.1:{page}"
        found.append(Finding(name="Vast", level="ok", said=said))
    elif page in urls and not settings.ADMIN_TRUSTED_PROXY:
        said = f"{urls[page]} is unencrypted: password and session cross the Internet in clear text"
        do = "use ssh -L, or put a TLS proxy in front of it and set ADMIN_TRUSTED_PROXY"
        found.append(Finding(name="Vast", level="warn", said=said, do=do))
    return found


def _is_port(name: str) -> bool:
    return name.startswith(PORT) and name[len(PORT) :].isdigit()


def _outside(environ: Mapping[str, str], port: str) -> str:
    """A mapped port as the Internet has it."""
    address = environ.get("PUBLIC_IPADDR", "").strip()
    return f"http://{f'[{address}]' if ':' in address else address or 'THIS-MACHINE'}:{port}"
