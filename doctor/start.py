"""Checks shared by start and examination: the worker's ports, and the shared memory. Read-only."""

from __future__ import annotations

import errno
import socket

from settings import Settings

SHM = "/dev/shm"  # noqa: S108 - the container's shared memory itself is meant
MIN_SHM_BYTES = 1 << 30

_NO_ADDRESS = "must be an address of this machine, like 127.0.0.1"


def fault_of_ports(settings: Settings) -> str | None:
    """Why the worker could not listen now, in one line that names the variable; None if it could."""
    fault = _fault("HTTP_PORT", settings.HTTP_PORT, "0.0.0.0")  # noqa: S104 - the probes must be reachable from outside
    if fault or not settings.admin_enabled:
        return fault
    if settings.ADMIN_PORT == settings.HTTP_PORT:
        return f"ADMIN_PORT={settings.ADMIN_PORT}: is also HTTP_PORT; must be a different port"
    return _fault("ADMIN_PORT", settings.ADMIN_PORT, settings.ADMIN_HOST)


def _fault(name: str, port: int, host: str) -> str | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        return f"ADMIN_HOST={host}: {_NO_ADDRESS}"
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"ADMIN_HOST={host}: {_NO_ADDRESS}"
            why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            return f"{name}={port}: {why}; must be a free port from 1 to 65535"
    return None
