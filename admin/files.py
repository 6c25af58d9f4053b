"""A job's videos and sound, found by the job alone: no path that was asked for is ever opened."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any, BinaryIO

import flask
from werkzeug.exceptions import NotFound, ServiceUnavailable
from werkzeug.wsgi import FileWrapper

from jobqueue import spool
from jobqueue.job import Job
from jobqueue.listing import Line

#: Files sent at once: a player that stops reading holds a thread, and the page needs some too.
MAX_READERS = 4
#: How long one more waits for its turn, in seconds: pieces are sent within moments, and a player that is refused gives up.
TURN_S = 1.0
#: What goes out in one step, whoever reads it: it needs no place.
SMALL = 64 * 1024
#: Most bytes of one answer to a player: one that stops reading in the middle of a large video must not keep a place.
PIECE = 1024 * 1024
KINDS = ("output", "video", "audio", "image", "frame")
_places = threading.BoundedSemaphore(MAX_READERS)
_HEADS = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "audio/wav",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"\x1aE\xdf\xa3": "video/webm",
}


def present(data_dir: Path, job: Job) -> list[str]:
    """Which of the job's files are on this machine."""
    found = []
    for kind in KINDS:
        if (handle := _open(data_dir, job, kind)) is not None:
            handle.close()
            found.append(kind)
    return found


def mark(data_dir: Path, job: Job) -> list[int]:
    """Another one as soon as a file of the job has come or gone: when the folders were changed that may hold some."""
    stored = spool.stored_file(data_dir, job)
    folders = [spool.folder(data_dir, job.id), *([stored.parent] if stored is not None else [])]
    return [folder.stat().st_mtime_ns for folder in folders if folder.is_dir()]


def frame(data_dir: Path, job: Job | Line) -> str | None:
    """A mark of the job's newest frame, another one for each; None if there is none."""
    try:
        return f"{spool.frame_file(data_dir, job.id, job.owner).stat().st_mtime_ns:x}"
    except OSError:
        return None


def send(data_dir: Path, job: Job, kind: str, whole: bool = False) -> flask.Response:
    """The file or the part of it that was asked for, piece by piece unless `whole`: players ask on, downloads do not.

    Raises NotFound, or ServiceUnavailable if too many are being sent.
    """
    handle = _open(data_dir, job, kind)
    if handle is None:
        raise NotFound
    head, facts = handle.read(12), os.fstat(handle.fileno())
    small = facts.st_size <= SMALL
    if not small and not _places.acquire(timeout=TURN_S):
        handle.close()
        raise ServiceUnavailable("Too many videos are being played at once. Close one and try again.", retry_after=5)
    handle.seek(0)
    response = flask.Response(FileWrapper(handle, 64 * 1024), mimetype=media_type(head))
    if not small:
        response.call_on_close(_places.release)
    response.call_on_close(handle.close)
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    if whole or response.mimetype == "application/octet-stream":
        response.headers["Content-Disposition"] = "attachment"
    response.content_length, response.last_modified = facts.st_size, facts.st_mtime  # type: ignore[assignment]
    response.set_etag(f"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}")
    environ = flask.request.environ if whole else _by_pieces(facts.st_size)
    try:
        response.make_conditional(environ, accept_ranges=True, complete_length=facts.st_size)
    except BaseException:
        response.close()
        raise
    return response


def _by_pieces(size: int) -> dict[str, Any]:
    """The request as if it asked for at most PIECE bytes. A shorter part than was asked for is a right answer (RFC 9110)."""
    environ, asked = flask.request.environ, flask.request.range
    span = asked.range_for_length(size) if asked else None
    if span is None:
        return environ
    start, stop = span
    return {**environ, "HTTP_RANGE": f"bytes={start}-{min(stop, start + PIECE) - 1}"}


def media_type(head: bytes) -> str:
    """By content, from a short list: a stranger's file must never be taken for a page."""
    if head[4:8] == b"ftyp":
        return "audio/mp4" if head[8:11] == b"M4A" else "video/mp4"
    return next((kind for magic, kind in _HEADS.items() if head.startswith(magic)), "application/octet-stream")


def _open(data_dir: Path, job: Job, kind: str) -> BinaryIO | None:
    """The file, if it is a plain one and no link led to it. The finished video is also found in the local store."""
    if kind not in KINDS:
        return None
    made = {"output": spool.output_file(data_dir, job.id), "frame": spool.frame_file(data_dir, job.id, job.owner)}
    path = made.get(kind) or spool.input_file(data_dir, job.id, kind)
    places = [(data_dir / "jobs", path)]
    if kind == "output" and (stored := spool.stored_file(data_dir, job)) is not None:
        places.append((data_dir / "outputs", stored))
    return next((opened for folder, file in places if (opened := _opened(folder, file)) is not None), None)


def _opened(folder: Path, path: Path) -> BinaryIO | None:
    try:
        if path.resolve(strict=True) != folder.resolve(strict=True) / path.relative_to(folder):
            return None
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not hold us up
    except (OSError, ValueError, RuntimeError):  # not there, a link, a NUL or .. in the name, links in a circle
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return os.fdopen(handle, "rb")
