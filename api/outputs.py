"""The videos of the local store over HTTP: GET, range requests, HEAD. Nothing outside the folder is reachable."""

from __future__ import annotations

import threading
from pathlib import Path

from flask import Response, send_file
from werkzeug.exceptions import NotFound, ServiceUnavailable

#: Maximum number of concurrent responses; a paused player holds its thread until it is dropped.
MAX_READERS = 4
_TYPES = {".mp4": "video/mp4", ".json": "application/json"}


class Outputs:
    """The folder, and the number of readers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = threading.BoundedSemaphore(MAX_READERS)

    def send(self, name: str) -> Response:
        """A file of the store. Raises NotFound, or ServiceUnavailable if too many are being sent."""
        path = _inside(self._folder, name)
        if path is None:
            raise NotFound
        if not self._places.acquire(blocking=False):
            raise ServiceUnavailable(f"{MAX_READERS} videos are being sent already", retry_after=2)
        try:
            response = send_file(path, mimetype=_TYPES[path.suffix], conditional=True, max_age=0)
        except BaseException:
            self._places.release()
            raise
        response.direct_passthrough = False  # otherwise we are not called when it has been sent
        response.call_on_close(self._places.release)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _inside(folder: Path, name: str) -> Path | None:
    """The file, if it is a regular one of the store and no link leads out of the folder."""
    try:
        path = (folder / name).resolve(strict=True)
        known = path.is_relative_to(folder.resolve()) and path.is_file() and path.suffix in _TYPES
    except (OSError, ValueError, RuntimeError):  # missing; a NUL in the name; a symlink loop
        return None
    return path if known and not any(part.startswith(".") for part in path.relative_to(folder.resolve()).parts) else None
