"""Avatars cached on disk, so that the next speech for the same video starts at the UNet.

One file per avatar, named by a digest of the video's content, the parameters that shape it and the weights. It is written under
a temporary name and renamed, contains its own digest, and is deleted if that is wrong. Over the size limit, the least recently
used file goes first. Any file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inference.engines.musetalk.avatar import Avatar
from inference.engines.musetalk.params import Params

log = logging.getLogger(__name__)

#: Incremented whenever the avatar of the same video would turn out differently than before.
FORM = 4
#: Parameters that do not shape an avatar.
NOT_ITS = ("loop", "fit", "tail", "no_face")
ENDING, ASIDE = ".avatar", ".part"
#: An avatar larger than this share of the limit is not cached: it would evict too many others.
MAX_SHARE = 0.5

#: Its arrays and their kinds.
ARRAYS: dict[str, Any] = {
    "boxes": np.int32,
    "latents": np.float16,
    "places": np.int32,
    "masks": np.uint8,
    "ends": np.int64,
}


def key(video: Path, params: Params, weights: str) -> str:
    """The avatar's name for this video. weights: identifies the set of networks."""
    with video.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    shaping = {name: value for name, value in asdict(params).items() if name not in NOT_ITS}
    return hashlib.sha256(json.dumps([FORM, content, shaping, weights], sort_keys=True).encode()).hexdigest()[:40]


class Cache:
    """Avatars in `folder`, at most `limit_bytes` in total. Without a folder or a limit above 0, nothing is cached;
    with a limit of 0, what an earlier life cached is removed."""

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{ASIDE}"):  # left by a process that died
            left.unlink(missing_ok=True)
        self._make_room()
        if limit_bytes <= 0:
            self._folder = None

    def get(self, name: str, pictures: int) -> Avatar | None:
        """The avatar of that name if it covers that many frames or the whole video; counts as a use."""
        if self._folder is None:
            return None
        path = self._folder / (name + ENDING)
        try:
            avatar = _read(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("deleted the damaged avatar %s: %s", path.name, error)
            path.unlink(missing_ok=True)
            return None
        return avatar if avatar.whole or len(avatar) >= pictures else None

    def put(self, name: str, avatar: Avatar) -> None:
        """Cache it. A full disk loses the avatar, not the job."""
        size = sum(getattr(avatar, array).nbytes for array in ARRAYS)
        if self._folder is None or size > self._limit_bytes * MAX_SHARE:
            return
        aside = self._folder / f"{name}.{os.getpid()}{ASIDE}"
        try:
            _write(aside, avatar)
            os.replace(aside, self._folder / (name + ENDING))
        except (OSError, SafetensorError) as error:
            log.warning("could not cache an avatar: %s", error)
        finally:
            aside.unlink(missing_ok=True)
        self._make_room()

    def _make_room(self) -> None:
        if self._folder is None:
            return
        kept = []
        for path in self._folder.glob(f"*{ENDING}"):
            try:
                known = path.stat()
            except FileNotFoundError:
                continue
            kept.append((known.st_mtime_ns, known.st_size, path))
        over = sum(size for _, size, _ in kept) - self._limit_bytes
        for _, size, path in sorted(kept):
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size
            log.info("removed the least recently used avatar %s", path.name)


def _write(path: Path, avatar: Avatar) -> None:
    arrays = {name: np.ascontiguousarray(getattr(avatar, name)) for name in ARRAYS}
    said = {"whole": "yes" if avatar.whole else "no"}
    save_file(arrays, path, metadata={**said, "sha256": _digest(arrays, said["whole"])})


def _read(path: Path) -> Avatar:
    """Raises ValueError if it is not what was written."""
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="numpy") as file:
        said = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in ARRAYS}
    if said.get("sha256") != _digest(arrays, said.get("whole", "")):
        raise ValueError("its content differs from what was written")
    return Avatar(**arrays, whole=said["whole"] == "yes")


def _digest(arrays: dict[str, Any], whole: str) -> str:
    digest = hashlib.sha256(whole.encode())
    for name in ARRAYS:
        digest.update(repr(arrays[name].shape).encode())
        digest.update(arrays[name])
    return digest.hexdigest()
