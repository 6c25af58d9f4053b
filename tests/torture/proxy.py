"""A proxy in front of the real orchestrator that drops, delays, answers 500, or lets a request through and loses its answer.

It also notes when heartbeats and terminal reports passed: the outside record that the invariants are checked against.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: The share of requests that meet each fault while faults are on.
FAULTS = {"drop": 0.05, "error": 0.05, "html": 0.02, "delay": 0.05, "lose": 0.06}
MAX_DELAY_S = 2.0


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of a request is what this is for."""


class Proxy:
    """Listens on a loopback port of its own; `faulty` can be switched at any time."""

    def __init__(self, target_port: int, seed: int) -> None:
        self.target_port, self.faulty = target_port, False
        self.heartbeats: list[float] = []
        self.met: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.pass_on(self)

            def do_GET(self) -> None:
                proxy.pass_on(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._fault()
        if request.path.endswith("/heartbeat"):
            self.heartbeats.append(time.monotonic())
        if fault == "drop":
            return self._hang_up(request)
        if fault == "error":
            return self._answer(request, 500, b'{"detail": "broken"}', "application/json")
        if fault == "html":
            return self._answer(request, 502, b"<html><body>Bad gateway</body></html>", "text/html")
        if fault == "delay":
            time.sleep(self._random.uniform(0, MAX_DELAY_S))
        try:
            status, kind, answer = self._forward(request, body)
        except OSError:
            return self._hang_up(request)
        if fault == "lose":
            return self._hang_up(request)
        return self._answer(request, status, answer, kind)

    def _fault(self) -> str | None:
        with self._lock:
            chance = self._random.random()
            if not self.faulty:
                return None
            for name, share in FAULTS.items():
                chance -= share
                if chance < 0:
                    self.met[name] += 1
                    return name
        return None

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=20)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def _answer(self, request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            request.close_connection = True

    def _hang_up(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.close()
