"""The orchestrator's client: the only module that knows its URLs and JSON (PROTOCOL §3).

Every call ends in time, whatever the server does: DNS that does not answer, a server that accepts and stays silent, or one
that sends a byte per second. So each call runs in its own thread, which is abandoned when the time is up; its connection is
then closed, because a slow server would keep thread and socket for hours.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from support.text import plain

log = logging.getLogger(__name__)

#: Total time limit of a call, in seconds: well under the 30 s after which a silent worker counts as lost.
TIMEOUT_S = 10.0
#: Maximum size of an answer, in bytes.
MAX_ANSWER_BYTES = 1024 * 1024
#: Maximum number of abandoned calls still running; above that a call fails at once.
MAX_LEFT_BEHIND = 24
#: Maximum length of an answer's text that is stored, and that goes into one log line, in characters.
MAX_WORDS, MAX_LINE = 300, 160

#: Where running jobs of each engine are reported.
_PROGRESS_PATHS = {"musetalk": "/internal/jobs/{}/progress", "fastwan": "/internal/videogen/jobs/{}/progress"}

Kind = Literal["ok", "gone", "refused", "down"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a call.

    kind    ok: any 2xx. gone: 404, 409, 410: it no longer wants this. refused: another 4xx.
            down: no answer, a 5xx, a redirect, or an unusable answer.
    status  the HTTP status, None without an answer
    body    the JSON object of an ok answer; empty if it has none
    words   the beginning of its text, on one line, or why there was no answer; without the key, safe to show
    took_ms from the call to the end of the answer
    """

    kind: Kind
    status: int | None = None
    body: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    took_ms: float = 0.0

    @property
    def text(self) -> str:
        """One short line for logs and pages: what went wrong, or "200"."""
        if self.status is None:
            return self.words
        return str(self.status) if self.kind == "ok" else f"HTTP {self.status}: {self.words[:MAX_LINE]}"


class Orchestrator:
    """Keep-alive connections to one orchestrator. Safe to use from several threads."""

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self._base_url, self._api_key, self._timeout_s = base_url.rstrip("/"), api_key, timeout_s
        self._session = self._new_session()
        self._left_behind: list[_Call] = []

    def claim(self, mode: str, body: dict[str, Any], key: str) -> Answer:
        """Claim a job. The same `key` again requests the lost answer. An ok answer always has a JSON object."""
        return self._post(f"/internal/{mode}/jobs/claim", body, key=key, must_be_json=True)

    def heartbeat(self, mode: str, worker_id: str, body: dict[str, Any]) -> Answer:
        return self._post(f"/internal/{mode}/workers/{_segment(worker_id)}/heartbeat", body)

    def progress(self, engine: str, job_id: str, body: dict[str, Any]) -> Answer:
        return self._post(_PROGRESS_PATHS[engine].format(_segment(job_id)), body)

    def buffer_status(self, buffer_job_id: str, body: dict[str, Any]) -> Answer:
        return self._post(f"/internal/buffer/jobs/{_segment(buffer_job_id)}/status", body)

    def _post(self, path: str, body: dict[str, Any], key: str | None = None, must_be_json: bool = False) -> Answer:
        self._left_behind = [call for call in self._left_behind if call.is_alive()]
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            return Answer(kind="down", words=f"{len(self._left_behind)} earlier calls still hang")
        began = time.monotonic()
        call = _Call(self._session, self._request(path, body, key), began + self._timeout_s, self._timeout_s, must_be_json)
        call.start()
        try:
            answer = call.answers.get(timeout=self._timeout_s)
        except queue.Empty:
            call.cut()
            self._left_behind.append(call)
            self._session = self._new_session()  # all connections of the old one may be used by hanging calls
            answer = Answer(kind="down", words=f"no answer within {self._timeout_s:g} s")
        took_ms = round(1000 * (time.monotonic() - began), 1)
        return replace(answer, words=self._fit(answer.words), took_ms=took_ms)

    def _fit(self, words: str) -> str:
        """An error page may echo the request or contain terminal control sequences, and its text goes to logs and the queue."""
        known = words.replace(self._api_key, "••••") if self._api_key else words
        return plain(known)[:MAX_WORDS]

    def _request(self, path: str, body: dict[str, Any], key: str | None) -> requests.PreparedRequest:
        prepared = requests.Request("POST", self._base_url + "/", data=json.dumps(body).encode()).prepare()
        prepared.url = self._base_url + path  # unchanged: requests would unquote the %2E of an id that is ".."
        prepared.headers["Content-Type"] = prepared.headers["Accept"] = "application/json"
        if self._api_key:
            prepared.headers["X-Internal-API-Key"] = self._api_key
        if key:
            prepared.headers["Idempotency-Key"] = key
        return prepared

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            adapter = requests.adapters.HTTPAdapter(max_retries=0, pool_maxsize=8)
            adapter.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
            session.mount(scheme, adapter)
        return session


class _Call(threading.Thread):
    """One call. `answers` gets the result; `cut` aborts it, at once if it is connected already."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(name="call", daemon=True)
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._arguments = arguments
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._is_cut = False

    def run(self) -> None:
        self.answers.put(_send(*self._arguments))

    def uses(self, line: socket.socket | None) -> None:
        """The request is sent on this connection."""
        with self._lock:
            self._line = line
            if self._is_cut:
                self._shut()

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            self._shut()

    def _shut(self) -> None:
        if self._line is not None:
            with suppress(OSError):  # it is closed already
                self._line.shutdown(socket.SHUT_RDWR)


class _Plain(HTTPConnection):
    """Tells the call in this thread which connection it is waiting on."""

    def getresponse(self) -> Any:
        call = threading.current_thread()
        if isinstance(call, _Call):
            call.uses(self.sock)
        return super().getresponse()


class _Secure(_Plain, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def _segment(name: str) -> str:
    """One path segment: slashes, dots and anything else that could change the path are encoded."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def _send(
    session: requests.Session, request: requests.PreparedRequest, deadline: float, timeout_s: float, must_be_json: bool
) -> Answer:
    try:
        environment = session.merge_environment_settings(str(request.url), {}, True, None, None)
        with session.send(request, timeout=timeout_s, allow_redirects=False, **environment) as response:
            content = _read(response, deadline)
            return _answer(response.status_code, content, response.headers.get("Location"), must_be_json)
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        return Answer(kind="down", words=_cause(error))


def _read(response: requests.Response, deadline: float) -> bytes:
    """The body, up to the limit. The caller's `with` closes a connection that was not read to its end."""
    content = b""
    for chunk in response.iter_content(16 * 1024):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer was too slow")
    return content


def _answer(status: int, content: bytes, location: str | None, must_be_json: bool) -> Answer:
    if 200 <= status < 300:
        body = _object(content)
        if body is None and must_be_json:
            return Answer(kind="down", status=status, words=f"not a JSON object: {_line(content)}")
        return Answer(kind="ok", status=status, body=body or {}, words=_line(content))
    if 300 <= status < 400:
        return Answer(kind="down", status=status, words=f"it redirects to {_place(location)}")
    kind: Kind = "gone" if status in (404, 409, 410) else "refused" if 400 <= status < 500 else "down"
    return Answer(kind=kind, status=status, words=_line(content))


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _place(location: str | None) -> str:
    """The target of a redirect, without its query, which may contain a token."""
    return (location or "nowhere").split("?")[0][:100]


def _line(content: bytes) -> str:
    """The whole answer on one line; it is cut only after the key has been removed."""
    return " ".join(content.decode(errors="replace").split()) or "no text"


def _cause(error: BaseException) -> str:
    """The innermost reason, without the URL that requests repeats in every message."""
    if isinstance(error, requests.Timeout | TimeoutError):
        return "no answer in time"
    root = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    return f"{type(root).__name__}: {getattr(root, 'strerror', None) or root}"[:200]
