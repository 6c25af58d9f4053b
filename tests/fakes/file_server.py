"""An HTTP server on loopback that gives files well or badly: each request takes the next answer of a list, the last one stays.

with FileServer([status(503), whole(body)]) as server:
    requests.get(server.url("/clip.mp4"))
server.seen[0].headers["Range"]
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    path: str
    headers: Message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.seen.append(Seen(self.path, self.headers))
            position = min(len(self.server.seen), len(self.server.answers)) - 1
        try:
            self.server.answers[position](self)
        except OSError:
            self.close_connection = True  # the client has gone

    def head(self, code: int, **headers: object) -> None:
        """The status line and the headers (`Content_Length=3`)."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


Answer = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, answers: Sequence[Answer]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answers = answers
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        super().__init__((host, 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is what some tests are about


class FileServer:
    def __init__(self, answers: Sequence[Answer], host: str = "127.0.0.1") -> None:
        self._host = f"[{host}]" if ":" in host else host
        self._server = _Server(host, answers)

    @property
    def seen(self) -> list[Seen]:
        return self._server.seen

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/clip.mp4", host: str | None = None) -> str:
        return f"http://{host or self._host}:{self.port}{path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def whole(body: bytes, *, etag: str | None = '"v1"', cut_after: int | None = None, ranges: bool = True) -> Answer:
    """A good answer, ranges and If-Range included; `cut_after`: the connection ends after so many bytes of it."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and ranges and handler.headers.get("If-Range") == etag else 0
        headers: dict[str, object] = {"Content_Type": "video/mp4", "Content_Length": len(body) - start}
        if etag:
            headers["ETag"] = etag
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.head(206 if start else 200, **headers)
        handler.wfile.write(body[start:] if cut_after is None else body[start : start + cut_after])
        if cut_after is not None:
            handler.hang_up()

    return answer


def status(code: int, **headers: object) -> Answer:
    """Only a status, with headers (`Retry_After=1`)."""
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def redirect(to: str, code: int = 302) -> Answer:
    return lambda handler: handler.head(code, Location=to, Content_Length=0)


def chunked(chunks: Sequence[bytes], *, ends: bool = True) -> Answer:
    """No length is told. Not `ends`: the connection breaks before the last, empty chunk."""

    def answer(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if ends:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.hang_up()

    return answer


def drip(body: bytes, every_s: float, *, length: int | None = None) -> Answer:
    """One byte at a time."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=length or len(body), ETag='"v1"')
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(every_s)

    return answer


def silence(handler: Handler) -> None:
    """No answer at all, until the client hangs up."""
    handler.connection.recv(1)
