"""A hub of models on loopback: large files lie on another server that it redirects to, and things go wrong as they are told to.

with Hub() as hub:
    file = hub.keep(body)                      # a weights.manifest.File that names it
    hub.faults[file.path] = [cut(1000), wrong]  # one a request; then all is well
    pull(folder, [file], Ways(mirror=hub.url))
hub.seen[0].headers["Range"]
"""

from __future__ import annotations

import hashlib
import re
from typing import Self
from urllib.parse import urlsplit

from tests.fakes.file_server import Answer, FileServer, Handler, Seen, status
from weights.manifest import File

REPOSITORY, REVISION = "someone/model", "0123456789abcdef0123456789abcdef01234567"

#: What the other server does with the file's bytes: answer with them, or not.
Fault = Answer


class Hub:
    """`url`: what a mirror is set to. `seen`: requests for files, in their order. `asked`: requests at the hub itself."""

    def __init__(
        self, *, names_hashes: bool = True, redirects: bool = True, repository: str = REPOSITORY, revision: str = REVISION
    ) -> None:
        self._repository, self._revision = repository, revision
        self.faults: dict[str, list[Fault]] = {}
        self._bodies: dict[str, bytes] = {}
        self._names_hashes, self._redirects = names_hashes, redirects
        self._hub = FileServer([self._at_hub])
        self._files = FileServer([self._at_files])

    @property
    def url(self) -> str:
        return self._hub.url("")

    @property
    def asked(self) -> list[Seen]:
        return self._hub.seen

    @property
    def seen(self) -> list[Seen]:
        return (self._files if self._redirects else self._hub).seen

    def keep(self, body: bytes, path: str = "net/weights.bin", *, listed: bool = True) -> File:
        """Have a file. Not `listed`: the manifest knows neither its size nor its hash."""
        self._bodies[path] = body
        digest = hashlib.sha256(body).hexdigest()
        return File(
            path=path,
            repository=self._repository,
            revision=self._revision,
            name=path,
            size_bytes=len(body) if listed else None,
            about_bytes=len(body),
            sha256=digest if listed else None,
        )

    def __enter__(self) -> Self:
        self._hub.__enter__()
        self._files.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.__exit__()
        self._files.__exit__()

    def _at_hub(self, handler: Handler) -> None:
        path = urlsplit(handler.path).path.removeprefix(f"/{self._repository}/resolve/{self._revision}/")
        body = self._bodies.get(path)
        if body is None:
            status(404)(handler)
        elif not self._redirects:
            self._give(handler, path, body)
        else:
            named = {"X_Linked_ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X_Linked_Size": len(body)}
            location = self._files.url(f"/{path}?signature=secret")
            handler.head(302, Location=location, Content_Length=0, **(named if self._names_hashes else {}))

    def _at_files(self, handler: Handler) -> None:
        path = urlsplit(handler.path).path.removeprefix("/")
        self._give(handler, path, self._bodies[path])

    def _give(self, handler: Handler, path: str, body: bytes) -> None:
        waiting = self.faults.get(path)
        if waiting:
            waiting.pop(0)(_Bodied(handler, body))  # type: ignore[arg-type]  # what a fault uses of a handler
        else:
            send(handler, body)


class _Bodied:
    """A handler that knows the right bytes, for the faults that need them."""

    def __init__(self, handler: Handler, body: bytes) -> None:
        self.handler, self.body = handler, body

    def __getattr__(self, name: str) -> object:
        return getattr(self.handler, name)


def send(handler: Handler, body: bytes, *, ranges: bool = True, cut_after: int | None = None) -> None:
    """The bytes, from where they were asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked and ranges else 0
    if start and start >= len(body):
        handler.head(416, Content_Length=0, Content_Range=f"bytes */{len(body)}")
        return
    headers: dict[str, object] = {"Content_Length": len(body) - start}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.head(206 if start else 200, **headers)
    if cut_after is None:
        handler.wfile.write(body[start:])
    else:
        handler.wfile.write(body[start : start + cut_after])
        handler.hang_up()


def cut(after_bytes: int) -> Fault:
    """The connection ends after so many bytes."""
    return lambda handler: send(handler, _body(handler), cut_after=after_bytes)


def wrong(handler: Handler) -> None:
    """As many bytes, one of which is another."""
    body = bytearray(_body(handler))
    body[-1] ^= 1
    send(handler, bytes(body))


def from_the_start(handler: Handler) -> None:
    """The whole file, whatever was asked for."""
    send(handler, _body(handler), ranges=False)


def other(body: bytes) -> Fault:
    """Something else altogether."""
    return lambda handler: send(handler, body, ranges=False)


def _body(handler: Handler) -> bytes:
    body: bytes = handler.body  # type: ignore[attr-defined]  # see _Bodied
    return body
