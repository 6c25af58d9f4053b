"""gunicorn, configured once for the HTTP programs (api, admin, orchestrator): one worker process with threads."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from service import die_with_parent

#: How long a peer may be silent in the middle of a request or response, in seconds.
SILENCE_S = 60.0


def serve(create_app: Callable[[], Any], binds: list[str], *, threads: int, grace_s: float = 3) -> None:
    """Serve a WSGI application until SIGTERM; it is created in the worker process, after the fork. grace_s: how long running
    requests may take after that."""
    options = {
        "bind": binds,
        "worker_class": Worker,
        "workers": 1,
        "threads": threads,
        "timeout": 60,
        "graceful_timeout": int(grace_s),
        "keepalive": 15,
        "limit_request_line": 4094,
        "limit_request_fields": 60,
        "secure_scheme_headers": {},  # any local client may set them, and strangers through a tunnel are local
        "control_socket_disable": True,
        "logger_class": _Logger,
        "post_fork": _after_fork,
    }
    _Application(create_app, options).run()


def dual_stack(port: int) -> str:
    """The bind address for IPv6 and IPv4, or IPv4 only if the machine has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::1", 0))
    except OSError:
        return f"0.0.0.0:{port}"
    return f"[::]:{port}"


def is_stopping() -> bool:
    """Whether this process has been told to stop; a waiting request has the grace period of `serve` to answer."""
    return Worker.stopping


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, create_app: Callable[[], Any], options: dict[str, Any]) -> None:
        self._create_app, self._options = create_app, options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._create_app()


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with three additions.

    Head and body of a response are sent in one segment: gunicorn writes them separately, the socket holds them back.
    A peer that stops reading or sending in the middle of a request is dropped, so that it cannot hold a thread forever.
    A long-waiting request can find out that the program is stopping (`is_stopping`).
    """

    stopping = False

    def handle_request(self, req: Any, conn: Any) -> Any:
        conn.sock.settimeout(SILENCE_S)
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(OSError):  # the peer, or gunicorn, has closed it already
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        Worker.stopping = True
        super().handle_exit(sig, frame)


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn logs like everything else; no access log (it would contain ids and tokens)."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.handlers.clear()
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True


def _after_fork(server: Any, worker: Any) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
