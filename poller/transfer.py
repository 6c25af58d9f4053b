"""One attempt at one link: send the request, follow redirects, check the answer, write the bytes to the part file.

It runs in its own thread, because DNS lookups, connecting and reading all block; the caller watches the clock and the job
meanwhile, and can abort it. Messages made here contain nothing of a link but its host.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3

from errors import InvalidInput
from poller import addresses, answer
from poller.answer import Broken
from poller.partial import Note, Part, disk

MAX_REDIRECTS = 5
CHUNK_BYTES = 256 * 1024
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits for one input."""

    max_bytes: int
    tries: int = 3  # consecutive attempts without progress
    total_s: float = 1800.0  # all attempts and pauses together
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0  # of silence
    min_bytes_per_s: float = 1024.0  # on average over the window; less is a stall
    window_s: float = 30.0
    pause_s: float = 4.0  # the longest pause before the second attempt, half of it the shortest; both double each time
    max_pause_s: float = 30.0  # also the longest Retry-After that is honored
    allow_private: bool = False  # also addresses that are not on the public internet


class Transfer:
    """An attempt in progress. Its numbers can be read at any time; after `done`, `error` is None or its failure."""

    def __init__(self, url: str, part: Part, limits: Limits, field: str) -> None:
        self.host = addresses.host_of(url, field)
        self.received_bytes = 0  # by this attempt
        self.size_bytes = 0  # of the file so far
        self.total_bytes: int | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._url, self._part, self._limits, self._field = url, part, limits, field
        self._lock = threading.Lock()
        self._line: socket.socket | None = None  # a second handle on the connection, to cut it with
        self._is_cut = False

    @property
    def label(self) -> str:
        """The beginning of each message."""
        return f"{self._field}: {self.host}"

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"fetch {self._field}", daemon=True).start()

    def cut(self) -> None:
        """Abort as soon as possible: at once during a read, at the timeout during a DNS lookup or connect."""
        with self._lock:
            self._is_cut = True
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._fetch()
        except BaseException as error:  # passed to the watching thread, which raises it
            self.error = error
        finally:
            if self._line is not None:
                self._line.close()
            self.done.set()

    def _fetch(self) -> None:
        offset, note = self._part.found()
        if note is not None and note.total_bytes == offset:  # complete: the process died just before renaming it
            self.size_bytes = self.total_bytes = offset
            self._part.finish()
            return
        client = addresses.adapter(self._open_socket)
        try:
            response = self._answer(client, offset, note)
            with response:
                self._take(response, offset, note)
        finally:
            client.close()
        self._part.finish()

    def _open_socket(self, host: str, port: int, timeout_s: float) -> socket.socket:
        allow_private = self._limits.allow_private
        checked = addresses.permitted(addresses.resolve(host, port), allow_private)
        self._stop_if_cut()
        connection = addresses.connect(checked, timeout_s, allow_private)
        with self._lock:
            if self._line is not None:
                self._line.close()
            self._line = connection.dup()
        try:
            self._stop_if_cut()
        except Broken:
            connection.close()
            raise
        return connection

    def _stop_if_cut(self) -> None:
        if self._is_cut:
            raise Broken("was cut off")

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _answer(self, client: requests.adapters.HTTPAdapter, offset: int, note: Note | None) -> requests.Response:
        """The first answer that is not a redirect."""
        headers = {"User-Agent": "gpu-video-worker", "Accept": "*/*", "Accept-Encoding": "identity"}
        if note is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": note.validator}
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(client, url, headers)
            if response.status_code not in REDIRECTS:
                return response
            response.close()
            location = response.headers.get("Location", "").encode("latin-1").decode(errors="replace")
            if not location:
                raise self._invalid(f"answered {answer.status(response)} without a Location")
            try:
                url = urljoin(url, location)
            except ValueError:
                raise self._invalid("redirects to a malformed link") from None
            self.host = addresses.host_of(url, self._field)
        raise InvalidInput(f"{self._field}: more than {MAX_REDIRECTS} redirects", stage="download", host=self.host)

    def _send(self, client: requests.adapters.HTTPAdapter, url: str, headers: dict[str, str]) -> requests.Response:
        timeouts = (self._limits.connect_timeout_s, self._limits.read_timeout_s)
        try:
            request = requests.Request("GET", url, headers=headers).prepare()
            return client.send(request, stream=True, timeout=timeouts, verify=True)
        except addresses.Refused:
            raise self._invalid("is not on the public internet; links to other addresses are not allowed") from None
        except addresses.NoSuchHost:
            raise Broken("does not exist; the link is dead", final=InvalidInput) from None
        except addresses.NotReached as error:
            raise Broken(f"could not be reached: {error}") from None
        except (requests.exceptions.InvalidURL, UnicodeError):
            raise self._invalid("is in a malformed link") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._failure(error) from None

    def _failure(self, error: BaseException) -> Exception:
        """What a library's error means. Its own text is not used: it contains the link, which may be signed."""
        cause: object = error
        while isinstance(cause, BaseException):
            if isinstance(cause, ssl.SSLCertVerificationError):  # a worker with a wrong clock would not have received the job
                return self._invalid(f"has an invalid certificate: {cause.verify_message}")
            cause = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            return Broken(f"was silent for {self._limits.read_timeout_s:g} s")
        if self.size_bytes:
            return Broken(f"broke the connection after {self.size_bytes} of {self.total_bytes or 'unknown'} bytes")
        return Broken("broke the connection before its answer was complete")

    def _invalid(self, reason: str) -> InvalidInput:
        return InvalidInput(f"{self.label} {reason}", stage="download", host=self.host)

    # ---- checking and reading the answer------------------------------------------------------------------------------

    def _take(self, response: requests.Response, offset: int, note: Note | None) -> None:
        try:
            answer.judge(response, asked=note is not None)
            continues = response.status_code == 206 and note is not None
            total = answer.total_of_rest(response, offset, note) if continues and note else response.raw.length_remaining
        except answer.Unfit as unfit:
            raise self._invalid(str(unfit)) from None
        except answer.Mismatch as mismatch:
            self._part.discard()
            raise Broken(str(mismatch)) from None
        self.total_bytes = total
        note = note if continues else answer.note_of(response)
        self.size_bytes = offset = offset if continues else 0
        if self.total_bytes is not None and self.total_bytes > self._limits.max_bytes:
            raise self._too_large(f"is {self.total_bytes / 1e6:.1f} MB")
        self._stop_if_cut()
        file = self._part.go_on() if offset else self._part.begin(note)
        try:
            self._read(response, file)
        finally:
            with disk():
                file.close()
        if self.total_bytes is not None and self.size_bytes != self.total_bytes:
            raise Broken(f"broke the connection after {self.size_bytes} of {self.total_bytes} bytes")
        if self.size_bytes == 0:
            raise self._invalid("sent an empty file")

    def _read(self, response: requests.Response, file: BinaryIO) -> None:
        while True:
            try:
                chunk: bytes = response.raw.read1(CHUNK_BYTES, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: closed under our hands
                raise self._failure(error) from None
            self._stop_if_cut()
            if not chunk:
                return
            if self.size_bytes + len(chunk) > self._limits.max_bytes:
                raise self._too_large("is larger")
            with disk():
                file.write(chunk)
            self.size_bytes += len(chunk)
            self.received_bytes += len(chunk)

    def _too_large(self, what: str) -> InvalidInput:
        limit = f"{self._limits.max_bytes / 1e6:g} MB"
        return InvalidInput(f"{self._field}: the file {what}, at most {limit} is allowed", stage="download", host=self.host)
