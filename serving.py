"""gunicorn, set up once for the programs that speak HTTP (api, admin, orchestrator): one worker process with threads."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from service import die_with_parent


def serve(create_app: Callable[[], Any], binds: list[str], *, threads: int, workers_tmp: str | None = None) -> None:
    """Serve a WSGI application until SIGTERM; the application is made in the worker process, after the fork."""
    options = {
        "bind": binds,
        "worker_class": "gthread",
        "workers": 1,
        "threads": threads,
        "timeout": 60,
        "graceful_timeout": 3,
        "keepalive": 15,
        "limit_request_line": 4094,
        "limit_request_fields": 60,
        "control_socket_disable": True,
        "worker_tmp_dir": workers_tmp,
        "logger_class": _Logger,
        "post_fork": _after_fork,
        "proc_name": None,
    }
    _Application(create_app, options).run()


def dual_stack(port: int) -> str:
    """The bind address that answers IPv6 and IPv4, or IPv4 alone where the machine has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::1", 0))
    except OSError:
        return f"0.0.0.0:{port}"
    return f"[::]:{port}"


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, create_app: Callable[[], Any], options: dict[str, Any]) -> None:
        self._create_app, self._options = create_app, options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if value is not None:
                self.cfg.set(name, value)

    def load(self) -> Any:
        return self._create_app()


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's words go the way of all other log lines; no access log (it would hold ids and tokens)."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.handlers.clear()
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True


def _after_fork(server: Any, worker: Any) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
