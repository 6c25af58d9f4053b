"""What tests that talk to living programs need: waiting with a limit, and a port that nobody has."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 20.0


def until(true: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait for a condition; its value. Fails after patience_s seconds."""
    deadline = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"did not become true within {patience_s} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
