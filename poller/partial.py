"""A file that is still coming in, on disk so that a broken connection or a killed process can be continued.

The bytes lie in TARGET.part, and beside them in TARGET.part.json what they were the beginning of: the link (as a hash, it may
be a signed one) and the server's own mark for that version of the file. Without such a mark nothing is continued: the
second half of a file that was replaced in between must never be put behind the first half of the old one.
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
    """What a server said about the version of the file that it sends. validator: its ETag or Last-Modified."""

    validator: str
    total_bytes: int | None


class Part:
    """The unfinished form of one file. The methods that write raise Unavailable if the disk does not take it."""

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._note_path = target.with_name(target.name + ".part.json")
        self._link = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()

    def found(self) -> tuple[int, Note | None]:
        """How many bytes can be continued, and under which note: (0, None) if there is nothing to go on with."""
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
        """A fresh file to write to. The old bytes go before the new note comes: they must never stand side by side."""
        self.discard()
        with disk():
            if note is not None:
                new = self._note_path.with_name(self._note_path.name + ".new")
                new.write_text(json.dumps({"link": self._link, "note": asdict(note)}))
                new.replace(self._note_path)
            return self.path.open("wb")

    def go_on(self) -> BinaryIO:
        """The file that was found, to write behind its end."""
        with disk():
            return self.path.open("ab")

    def finish(self) -> None:
        """Make it the target: on the disk first, then under its name, so that a target that is there is whole."""
        with disk():
            spool.keep(self.path, self.target)
            self._note_path.unlink(missing_ok=True)

    def discard(self) -> None:
        with disk():
            self.path.unlink(missing_ok=True)
            self._note_path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk() -> Iterator[None]:
    """Around every act on a file of ours."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise Unavailable(f"the input could not be kept on this worker's disk: {reason}", stage="download") from None
