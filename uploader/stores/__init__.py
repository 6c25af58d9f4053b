"""Where finished videos go: a store takes a file under a name and confirms it, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: Told how many bytes of how many have gone; what it raises ends the upload.
OnBytes = Callable[[int, int], None]


class StoreRefused(Exception):
    """The store will never have us as we are: the message names the variable to change."""


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
        """Ask whether the store will have us. Raises StoreRefused, or Unavailable if it may later."""

    def put(self, path: Path, name: str, content_type: str, sha1: str, on_bytes: OnBytes) -> Stored:
        """Store a file of this SHA-1 and have it and the size confirmed. Twice gives the same object. Raises Unavailable."""

    def put_json(self, name: str, data: dict[str, Any]) -> None:
        """Store a small JSON object. Raises Unavailable."""


def sha1_of(path: Path) -> str:
    """The SHA-1 of a file, as the store's checksums are."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
