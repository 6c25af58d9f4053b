"""Where finished videos go: a store saves a file under a name and verifies every byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: Called with bytes sent and total bytes; an exception from it aborts the upload.
OnBytes = Callable[[int, int], None]


class StoreRefused(Exception):
    """The store rejects our configuration permanently: the message names the variable to change."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object that the store has confirmed."""

    url: str
    bucket: str | None
    file_name: str
    size_bytes: int
    sha1: str


class Store(Protocol):
    name: str

    def check(self) -> None:
        """Check whether the store accepts us. Raises StoreRefused, or Unavailable if it may later."""

    def put(self, path: Path, name: str, content_type: str, sha1: str, on_bytes: OnBytes) -> Stored:
        """Store a file with this SHA-1, and verify it and the size. Idempotent. Raises Unavailable."""

    def put_json(self, name: str, data: dict[str, Any]) -> None:
        """Store a small JSON object. Raises Unavailable."""
