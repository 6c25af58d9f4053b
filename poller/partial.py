"""A partial download on disk, which can be resumed after a broken connection or a killed process.

The bytes are in TARGET.part, and TARGET.part.json says what they belong to: the link (hashed, since it may be signed) and the
server's validator for that version of the file. Without a validator nothing is resumed: the second half of a replaced file
must never be appended to the first half of the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from errors import Unavailable
from jobqueue import spool


@dataclass(frozen=True, kw_only=True)
class Note:
    """The version of the file according to the server. validator: its ETag or Last-Modified."""

    validator: str
    total_bytes: int | None


class Part:
    """The partial form of one file. The writing methods raise Unavailable if the disk fails."""

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._note_path = target.with_name(target.name + ".part.json")
        self._link = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()

    def found(self) -> tuple[int, Note | None]:
        """How many bytes can be resumed, and their note: (0, None) if there is nothing to resume."""
        try:
            said = json.loads(self._note_path.read_text())
            size_bytes = self.path.stat().st_size
            note = Note(**said["note"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None
        too_long = note.total_bytes is not None and size_bytes > note.total_bytes
        if said.get("link") != self._link or too_long or size_bytes == 0:
            return 0, None
        return size_bytes, note

    def begin(self, note: Note | None) -> BinaryIO:
        """A new file to write to. The old bytes are deleted before the new note is written: they must never coexist."""
        self.discard()
        with disk():
            if note is not None:
                new = self._note_path.with_name(self._note_path.name + ".new")
                new.write_text(json.dumps({"link": self._link, "note": asdict(note)}))
                new.replace(self._note_path)
            return self.path.open("wb")

    def go_on(self) -> BinaryIO:
        """The existing file, opened for appending."""
        with disk():
            return self.path.open("ab")

    def finish(self) -> None:
        """Make it the target: sync first, then rename, so that an existing target is complete."""
        with disk():
            spool.keep(self.path, self.target)
            self._note_path.unlink(missing_ok=True)

    def discard(self) -> None:
        with disk():
            self.path.unlink(missing_ok=True)
            self._note_path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk() -> Iterator[None]:
    """Wraps every operation on one of our files."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise Unavailable(f"the input could not be saved on this worker's disk: {reason}", stage="download") from None
