"""SHA-256 checksums of files, and lists of them in the format of `sha256sum -c`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 2**20


def digest(path: Path, tick: Callable[[int], None] = lambda count: None) -> str:
    """The file's SHA-256 in hexadecimal. `tick` is called for every MiB read, and may raise."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            tick(len(chunk))
    return found.hexdigest()


def read(path: Path) -> dict[str, str]:
    """name -> hash; empty if there is no list. Lines in any other format are skipped."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2 and len(pair[0]) == 64}


def write(path: Path, sums: dict[str, str]) -> None:
    """Replace the list atomically."""
    part = path.with_name(path.name + ".part")
    part.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    keep(part, path)


def keep(part: Path, target: Path) -> None:
    """Rename a complete file to its final name, and sync both to disk against a power cut."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
