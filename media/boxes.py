"""Walks the boxes of an MP4 file or the chunks of a WAV file to check that the file is complete."""

from __future__ import annotations

from pathlib import Path

from errors import InvalidInput

#: Parsing stops after this many parts.
MAX_PARTS = 100_000

#: Programs that write a WAV to a pipe use lengths from this value up to mean "unknown".
UNKNOWN_LENGTH = 0x7FFF0000


def check_whole(path: Path, format_name: str) -> None:
    """Raises InvalidInput if a box of an MP4 or MOV file, or a chunk of a WAV, extends beyond the end of the file."""
    size = path.stat().st_size
    if format_name.startswith("mov,"):
        name, parts = "MP4", top_level(path)
    elif format_name == "wav":
        name, parts = "WAV", [part for part in chunks(path) if part[2] < UNKNOWN_LENGTH]
    else:
        return
    for kind, start, length in parts:
        missing = start + length - size
        if missing > 1:  # the padding of a last odd chunk is often left out
            raise InvalidInput(
                f"the {name} file is cut off: its {kind} part lacks {missing} of {length} bytes", missing_bytes=missing
            )


def chunks(path: Path) -> list[tuple[str, int, int]]:
    """(kind, start, length) of a WAV's chunks, as their headers say; lengths in bytes with the header."""
    found: list[tuple[str, int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 12
        while start + 8 <= size and len(found) < MAX_PARTS:
            file.seek(start)
            header = file.read(8)
            length = 8 + int.from_bytes(header[4:8], "little")
            found.append((header[:4].decode("latin-1"), start, length))
            start += length + length % 2
    return found


def top_level(path: Path) -> list[tuple[str, int, int]]:
    """(kind, start, length) of the outermost boxes, as their headers say; lengths in bytes with the header."""
    found: list[tuple[str, int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + 8 <= size and len(found) < MAX_PARTS:
            file.seek(start)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = size - start
            if length < 8:
                break
            found.append((header[4:8].decode("latin-1"), start, length))
            start += length
    return found
