"""An orchestrator that says what it is told to, well or badly: a real HTTP server on loopback, one thread a request."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Heard:
    """A request as it came in. at: monotonic clock, s."""

    path: str
    headers: dict[str, str]
    body: Any
    at: float


#: Answers a request, or does not.
Behaviour = Callable[["_Handler"], None]


def says(body: Any, status: int = 200) -> Behaviour:
    return lambda handler: handler.reply(status, json.dumps(body).encode(), "application/json")


def says_raw(content: bytes, status: int = 200, **headers: str) -> Behaviour:
    return lambda handler: handler.reply(status, content, "text/html", **headers)


def error_page(status: int) -> Behaviour:
    return says_raw(b"<html><body><h1>nginx</h1></body></html>", status)


def drops() -> Behaviour:
    def behave(handler: _Handler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    return behave


def hangs() -> Behaviour:
    def behave(handler: _Handler) -> None:
        handler.house.over.wait(30)

    return behave


def drips() -> Behaviour:
    """A byte of the header every 20 ms: no read ever times out."""

    def behave(handler: _Handler) -> None:
        with contextlib.suppress(OSError):
            handler.connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not handler.house.over.wait(0.02):
                handler.connection.sendall(b"x")

    return behave


def drips_body() -> Behaviour:
    def behave(handler: _Handler) -> None:
        with contextlib.suppress(OSError):
            handler.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            while not handler.house.over.wait(0.02):
                handler.connection.sendall(b" ")

    return behave


@dataclass
class FakeOrchestrator:
    """`script` decides about each request; without a rule of its own it is {"detail": "ok"}, and no job."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    script: Callable[[Heard], Behaviour | None] = lambda heard: None
    over: threading.Event = field(default_factory=threading.Event)

    def to(self, ending: str) -> list[Heard]:
        """Requests whose path ends so."""
        return [heard for heard in list(self.heard) if heard.path.endswith(ending)]

    def wait_for(self, ending: str, count: int = 1, seconds: float = 15.0) -> list[Heard]:
        """Wait until so many requests came to paths that end so."""
        deadline = time.monotonic() + seconds
        while len(self.to(ending)) < count:
            assert time.monotonic() < deadline, f"only {len(self.to(ending))} of {count} requests to …{ending} came"
            time.sleep(0.01)
        return self.to(ending)


@contextlib.contextmanager
def fake_orchestrator() -> Iterator[FakeOrchestrator]:
    house = FakeOrchestrator()

    class Handler(_Handler):
        pass

    Handler.house = house
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    house.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield house
    finally:
        house.over.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    house: FakeOrchestrator
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        heard = Heard(self.path, dict(self.headers.items()), json.loads(content), time.monotonic())
        self.house.heard.append(heard)
        default = {"job": None, "error": None} if self.path.endswith("/claim") else {"detail": "ok"}
        with contextlib.suppress(OSError):
            (self.house.script(heard) or says(default))(self)

    def reply(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass
