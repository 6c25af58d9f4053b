"""Whether the queue's file is intact, for the doctor. Reads every page; never changes anything."""

from __future__ import annotations

from pathlib import Path

from jobqueue.database import Database

#: The first few tell as much as all.
MAX_FAULTS = 10


def faults(database: Database) -> list[str]:
    """What is damaged in the file, in SQLite's words; empty if nothing is. Raises what `database.ERRORS` names."""
    found = [str(value) for row in database.read(f"pragma integrity_check({MAX_FAULTS})") for value in row.values()]
    broken = [str(row) for row in database.read("pragma foreign_key_check")]
    return [line for line in found if line != "ok"] + broken[:MAX_FAULTS]


def log_bytes(path: Path) -> int:
    """Size of the write-ahead log beside the file."""
    log = path.with_name(path.name + "-wal")
    return log.stat().st_size if log.exists() else 0
