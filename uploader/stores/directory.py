"""The local store: a folder that the api serves, for a machine without a bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from errors import EngineFailed, Unavailable
from jobqueue import spool
from uploader.stores import OnBytes, Stored, StoreRefused


class DirectoryStore:
    """Objects are files under `root`, found at `base_url`/outputs/."""

    name = "local"

    def __init__(self, root: Path, base_url: str) -> None:
        self._root, self._base_url = root, base_url.rstrip("/")

    def check(self) -> None:
        """Raises StoreRefused if the folder cannot be written."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreRefused(f"DATA_DIR: {self._root} cannot be written ({error.strerror})") from error

    def put(self, path: Path, name: str, content_type: str, sha1: str, on_bytes: OnBytes) -> Stored:
        """Copy the file, sync it, rename it, and read it back. Raises Unavailable if the disk does not keep it."""
        target = self._file(name)
        size = path.stat().st_size
        on_bytes(0, size)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.part")
            shutil.copyfile(path, aside)
            spool.keep(aside, target)
            kept = (target.stat().st_size, spool.sha1_of(target))
        except OSError as error:
            raise Unavailable(f"the local store could not save the video: {error.strerror}", stage="upload") from error
        if kept != (size, sha1):
            raise Unavailable("the local store does not hold the bytes that were written", stage="upload", size_bytes=kept[0])
        on_bytes(size, size)
        url = f"{self._base_url}/outputs/{quote(name)}"
        return Stored(url=url, bucket=None, file_name=name, size_bytes=size, sha1=sha1)

    def put_json(self, name: str, data: dict[str, Any]) -> None:
        """Write the object as indented JSON. Raises Unavailable."""
        target = self._file(name)
        aside = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(data, indent=2) + "\n")
            spool.keep(aside, target)
        except OSError as error:
            raise Unavailable(f"the local store could not save the sidecar: {error.strerror}", stage="upload") from error

    def _file(self, name: str) -> Path:
        parts = name.split("/")
        if name.startswith("/") or "\0" in name or any(part in ("", ".", "..") or part.startswith(".") for part in parts):
            raise EngineFailed(f"{name!r:.100} is not a valid object name", stage="upload")
        return self._root.joinpath(*parts)
