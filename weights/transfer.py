"""One try to fetch the rest of one file over HTTP: resumes the part, follows redirects, reads the hub's size and hash."""

from __future__ import annotations

import fcntl
import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from errors import InvalidInput, Unavailable

#: The most bytes read at once.
CHUNK_BYTES = 2**16
CONNECT_S, READ_S = 10.0, 30.0
_MOST_REDIRECTS = 5
#: The most digits of a size in a hub's header.
_MOST_DIGITS = 18
_AGENT = {"User-Agent": "gpu-video-worker", "Accept-Encoding": "identity"}


class Broken(Exception):
    """This try failed; another may succeed. retry_after_s: how long the server asked to wait."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Absent(Exception):
    """This address does not have the file; another may."""


class Stopped(Exception):
    """The pull was stopped; partial downloads are kept."""


@dataclass(frozen=True)
class Promise:
    """The SHA-256 and size that the hub states for a file, if any."""

    sha256: str | None = None
    size_bytes: int | None = None


def is_allowed(url: str, allow_private: bool) -> bool:
    """https anywhere; http to this machine, or wherever private addresses are allowed."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return True
    return parts.scheme == "http" and bool(parts.hostname) and (allow_private or _is_loopback(parts.hostname or ""))


@contextmanager
def open_part(part: Path) -> Iterator[BinaryIO]:
    """The partial file, open for appending and locked by this process. Raises Unavailable."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(f"{part}: another process is fetching it") from None
        yield file


def fetch(
    url: str,
    file: BinaryIO,
    max_bytes: int,
    allow_private: bool,
    stop: threading.Event,
    on_bytes: Callable[[int], None],
) -> Promise:
    """Append the rest of the file at `url` to `file`, but not much more than `max_bytes`.

    `on_bytes` is called with the number of bytes in the file so far.

    Returns the hub's promise. Raises Broken (try again), Absent (try elsewhere), Stopped, InvalidInput, and OSError only
    for the file.
    """
    offset = file.seek(0, 2)
    try:
        with requests.Session() as session:
            session.trust_env = not _is_loopback(urlsplit(url).hostname or "")  # a proxy cannot reach this machine
            response, promise = _asked(session, url, offset, allow_private)
            with response:
                _judge(response, offset)
                if offset and response.status_code != 206:
                    file.truncate(0)
                    offset = file.seek(0, 2)
                for there_bytes in _received(response, file, offset):
                    on_bytes(there_bytes)
                    if stop.is_set():
                        raise Stopped
                    if there_bytes > max_bytes:
                        break  # the hash will be wrong anyway
                return promise
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Broken(_in_words(error)) from error
    except ValueError as error:  # from a redirect address or a number in the headers
        raise Broken("sent an invalid response") from error


def _asked(session: requests.Session, url: str, offset: int, allow_private: bool) -> tuple[requests.Response, Promise]:
    """The response of the server that has the file, and the promise of those that redirected to it."""
    headers, promise = _AGENT | ({"Range": f"bytes={offset}-"} if offset else {}), Promise()
    for _ in range(_MOST_REDIRECTS + 1):
        if not is_allowed(url, allow_private):
            raise InvalidInput(f"{_shown(url)}: must be https, or http on this machine (ALLOW_PRIVATE_URLS allows others)")
        response = session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=(CONNECT_S, READ_S))
        promise = _promised(response, promise)
        if not response.is_redirect:
            return response, promise
        url = urljoin(url, response.headers["Location"])
        response.close()
    raise Broken(f"redirected more than {_MOST_REDIRECTS} times")


def _promised(response: requests.Response, before: Promise) -> Promise:
    """A hub that redirects large files to other storage states their hash and size in the redirect."""
    tag = response.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"').lower()
    size = response.headers.get("X-Linked-Size", "")
    is_hash = len(tag) == 64 and not set(tag) - set("0123456789abcdef")
    is_size = size.isdecimal() and len(size) <= _MOST_DIGITS
    return Promise(tag if is_hash else before.sha256, int(size) if is_size else before.size_bytes)


def _judge(response: requests.Response, offset: int) -> None:
    code = response.status_code
    if code in (408, 425, 429) or code >= 500:
        asked = response.headers.get("Retry-After", "")
        raise Broken(f"answered {code}", float(asked) if asked.isdecimal() else 0.0)
    if code in (401, 403, 404, 410, 451):
        raise Absent(f"answered {code}")
    if code == 416:  # the part is complete, or too long: the hash will tell
        return
    if code not in (200, 206):
        raise Broken(f"answered {code}")
    if code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        raise Broken("sent a different range than requested")


def _received(response: requests.Response, file: BinaryIO, offset: int) -> Iterator[int]:
    """Write the response to the file; yields the number of bytes in the file so far."""
    if response.status_code == 416:
        return
    told = response.headers.get("Content-Length", "")
    came = 0
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):  # iter_content would wait for a full chunk
        file.write(chunk)
        came += len(chunk)
        yield offset + came
    if told.isdecimal() and came < int(told):
        raise Broken(f"ended the response after {came:,} of {int(told):,} bytes")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_words(error: Exception) -> str:
    words = {
        requests.exceptions.SSLError: "has an invalid certificate",
        requests.exceptions.ProxyError: "could not be reached through the proxy",
        requests.exceptions.ConnectTimeout: f"did not answer within {CONNECT_S:g} s",
        requests.exceptions.ReadTimeout: f"sent nothing for {READ_S:g} s",
        requests.exceptions.ChunkedEncodingError: "dropped the connection",
        requests.exceptions.ConnectionError: "refused or dropped the connection",
        urllib3.exceptions.ReadTimeoutError: f"sent nothing for {READ_S:g} s",
        urllib3.exceptions.ProtocolError: "dropped the connection",
    }
    return next((said for kind, said in words.items() if isinstance(error, kind)), "sent an invalid response")


def _shown(url: str) -> str:
    """Without the query: in signed links it holds secrets."""
    return urlsplit(url)._replace(query="", fragment="").geturl()
