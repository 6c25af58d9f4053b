"""Walks the boxes of an MP4 file to see whether all of it has arrived."""

from __future__ import annotations

from pathlib import Path

from errors import InvalidInput


def check_whole(path: Path, format_name: str) -> None:
    """Raises InvalidInput if a top-level box of an MP4 or MOV file reaches beyond the end of the file."""
    if not format_name.startswith("mov,"):
        return
    size = path.stat().st_size
    for kind, start, length in top_level(path):
        if start + length > size:
            missing = start + length - size
            raise InvalidInput(
                f"the MP4 file is cut off: its {kind} box misses {missing} of {length} bytes", missing_bytes=missing
            )


def top_level(path: Path) -> list[tuple[str, int, int]]:
    """(kind, start, length) of the outermost boxes, as their headers say; lengths in bytes with the header."""
    found: list[tuple[str, int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + 8 <= size and len(found) < 100_000:
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
