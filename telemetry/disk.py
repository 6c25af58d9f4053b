"""What a disk has left and what a folder on it holds, from directory entries alone: no file is opened, which would drop the
locks of a database that lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Minimum free space on a disk: this many bytes, or this share of a small disk.
MIN_FREE_BYTES, MIN_FREE = 1e9, 0.05


def min_free_bytes(total_bytes: int) -> float:
    """The free space that a disk of this size needs before new work is started."""
    return min(MIN_FREE_BYTES, total_bytes * MIN_FREE)


def held_bytes(folder: Path) -> int:
    """The disk usage of a folder."""
    return sum(size_bytes(file) for file in files(folder))


def files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is no folder, in it and below; nothing if it is not there."""
    for entry in entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path))
        else:
            yield entry


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing if it is not there."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def size_bytes(entry: os.DirEntry[str]) -> int:
    """What a file takes on the disk; 0 if it has gone."""
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0
