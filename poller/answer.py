"""What a server's answer to a download means: the file, the rest of it, retry, or give up.

A reason continues a sentence that begins with the host: "answered 503 Service Unavailable". The server's text is not repeated.
"""

from __future__ import annotations

import http
import re
import time
from email.utils import parsedate_to_datetime

import requests

from errors import JobError, Unreachable
from poller.partial import Note

#: 4xx statuses that are worth a retry; every 5xx is.
PASSING = (408, 425, 429)


class Broken(Exception):
    """This attempt failed, the next may not. `reason` follows the host's name: "answered 503 Service Unavailable"."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0, final: type[JobError] = Unreachable) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.final = final  # the error when no attempt is left


class Unfit(Exception):
    """A retry would not change this answer."""


class Mismatch(Exception):
    """This answer does not match the bytes already downloaded: start over."""


def judge(response: requests.Response, asked: bool) -> None:
    """Return if the answer has the file or (asked) the rest of it; otherwise raise Broken, Unfit or Mismatch."""
    number = response.status_code
    if number == 416 or (number == 206 and not asked):
        raise Mismatch(f"answered {status(response)} which does not match the request")
    if number in PASSING or number >= 500:
        raise Broken(f"answered {status(response)}", retry_after_s=_retry_after_s(response))
    if number not in (200, 203, 206):
        dead = "; the link is dead or expired" if number in (401, 403, 404, 410) else ""
        raise Unfit(f"answered {status(response)}{dead}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Unfit(f"sent the file encoded as {encoding[:20]!r}; only identity is allowed")


def total_of_rest(response: requests.Response, offset: int, note: Note) -> int:
    """The whole file's size by a 206 answer. Raises Mismatch if it is not the rest from `offset` of the file noted."""
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip())
    first, last = (int(match[1]), int(match[2])) if match else (-1, -1)
    totals = {last + 1, note.total_bytes or last + 1, int(match[3]) if match and match[3] != "*" else last + 1}
    length: int | None = response.raw.length_remaining
    is_rest = first == offset and last >= first and length in (None, last - first + 1) and len(totals) == 1
    etag = response.headers.get("ETag", "").strip()
    if not is_rest or (etag and note.validator.startswith('"') and etag != note.validator):
        raise Mismatch("sent a different part of the file than requested")
    return last + 1


def note_of(response: requests.Response) -> Note | None:
    """None if the server sends no validator, or only a weak one (W/…), which does not guarantee equal bytes."""
    etag = response.headers.get("ETag", "").strip()
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "").strip()
    length: int | None = response.raw.length_remaining
    return Note(validator=validator, total_bytes=length) if validator else None


def status(response: requests.Response) -> str:
    """Status code and standard name."""
    try:
        return f"{response.status_code} {http.HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)


def _retry_after_s(response: requests.Response) -> float:
    """Retry-After in seconds from now; 0 if there is none."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
