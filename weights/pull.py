"""Downloads an engine's files: several at once, resumed, verified by SHA-256, and renamed into place only when correct."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from errors import InvalidInput, JobError, Unavailable
from weights import manifest, sums, verify
from weights.manifest import File
from weights.transfer import Absent, Broken, Promise, Stopped, fetch, is_allowed, open_part

log = logging.getLogger(__name__)

#: Files that are fetched at the same time.
AT_ONCE = 4
#: A try that gets this much further into the file than any before it resets the count of tries.
PROGRESS_BYTES = 2**20
#: How often a source may send a complete but wrong file.
MAX_WRONG = 2
#: Disk space that must remain free afterwards.
SPARE_BYTES = 512 * 2**20

#: on_bytes(path, bytes so far, total bytes, which may be an estimate)
OnBytes = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How to fetch. mirror: tried first, with the hub's own paths, then those under MODELS_DIR; the hub itself is last."""

    mirror: str | None = None
    allow_private: bool = False
    tries: int = 6
    pause_s: float = 1.0
    max_pause_s: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)


class Wrong(Broken):
    """The file arrived complete, but it is the wrong one."""


class Down(Absent):
    """All tries of this address have failed; another server may have the file."""


@dataclass(frozen=True)
class Outcome:
    """The result for one file. said: why it failed, or, for a file with no hash in the manifest, the hash of what arrived."""

    path: str
    state: Literal["fetched", "there", "failed", "stopped"]
    said: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    source: str = ""


def pull(
    folder: Path, files: list[File], ways: Ways | None = None, on_bytes: OnBytes = lambda path, done, total: None
) -> list[Outcome]:
    """Download all `files` into `folder`; returns one outcome each, in order. A failed file does not stop the others.

    Set `ways.stop` or press Ctrl-C to stop; the next call resumes. Raises InvalidInput for a mirror that is not allowed,
    Unavailable if the disk has no room.
    """
    ways = ways or Ways()
    if ways.mirror and not is_allowed(ways.mirror, ways.allow_private):
        raise InvalidInput(f"MODELS_MIRROR={ways.mirror}: must be https, or http on this machine (see ALLOW_PRIVATE_URLS)")
    folder.mkdir(parents=True, exist_ok=True)
    kept = _converted(folder, files)
    check_room(folder, [file for file in files if file.path not in kept])
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull") as threads:
        coming = {file.path: threads.submit(_brought, folder, file, ways, on_bytes) for file in files if file.path not in kept}
        try:
            outcomes = [coming[file.path].result() if file.path in coming else kept[file.path] for file in files]
        except BaseException as error:
            ways.stop.set()
            if isinstance(error, KeyboardInterrupt):  # keep waiting for a silent server until Ctrl-C is pressed again
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise
    _note(folder, outcomes)
    return outcomes


def _converted(folder: Path, files: list[File]) -> dict[str, Outcome]:
    """Outcomes, by path, of files that may be missing because they have been converted. Reads the converted ones."""
    absent = [file.path for file in files if file.path in manifest.BECOMES and not (folder / file.path).exists()]
    if not absent:
        return {}
    there = verify.stood_for([verdict for engine in manifest.CONVERTED for verdict in verify.converted(folder, engine)])
    return {path: Outcome(path, "there", f"converted: {manifest.BECOMES[path][0]}") for path in absent if path in there}


def check_room(folder: Path, files: list[File]) -> None:
    """Raises Unavailable if the remaining bytes do not fit."""
    needed = sum(max(file.expected_bytes - _there(folder / file.path), 0) for file in files)
    free = shutil.disk_usage(folder).free
    if needed and free < needed + SPARE_BYTES:
        asked = f"{needed / 1e9:.1f} GB are still to be downloaded and {SPARE_BYTES / 1e9:.1f} GB must stay free"
        raise Unavailable(f"{folder}: has {free / 1e9:.1f} GB free; {asked}")


def sources(file: File, mirror: str | None) -> list[str]:
    """The URLs to try for a file, in order."""
    if not mirror:
        return [file.origin]
    of_hub = [f"{mirror}/{file.repository}/resolve/{file.revision}/{file.name}"] if file.repository else []
    return [*of_hub, f"{mirror}/{file.path}", file.origin]


# ---- one file --------------------------------------------------------------------------------------------------------------


def _brought(folder: Path, file: File, ways: Ways, on_bytes: OnBytes) -> Outcome:
    """One file's outcome. Errors that concern only this file are not raised."""
    began = time.monotonic()
    target = folder / file.path
    try:
        _heed(ways.stop)
        there = verify.check(folder, file, lambda _: _heed(ways.stop))
        if there.state in ("good", "unknown"):
            return Outcome(file.path, "there", there.said, there.size_bytes)
        with open_part(target.with_name(target.name + ".part")) as part:
            source, digest = _tried(file, part, ways, on_bytes)
            sums.keep(Path(part.name), target)
    except Stopped:
        return Outcome(file.path, "stopped", "stopped; the next pull resumes it")
    except JobError as error:
        return Outcome(file.path, "failed", error.message)
    except OSError as error:
        return Outcome(file.path, "failed", f"{target}: could not be written to disk: {(error.strerror or str(error)).lower()}")
    size_bytes, seconds = target.stat().st_size, time.monotonic() - began
    log.info("fetched %s, %d bytes in %.1f s", file.path, size_bytes, seconds)
    return Outcome(file.path, "fetched", "" if file.sha256 else digest, size_bytes, seconds, urlsplit(source).hostname or "")


def _tried(file: File, part: BinaryIO, ways: Ways, on_bytes: OnBytes) -> tuple[str, str]:
    """Fill the part from the first source that has the file. Returns the source and the file's hash."""
    said: list[str] = []
    down: set[str] = set()
    for source in sources(file, ways.mirror):
        server = urlsplit(source)
        if server.netloc in down:  # its other paths would only cost more tries
            continue
        try:
            return source, _persisted(file, source, part, ways, on_bytes)
        except Absent as error:
            said.append(f"{server.hostname} {error}")
            down |= {server.netloc} if isinstance(error, Down) else set()
    raise Unavailable(f"{file.path}: no source has it: {', '.join(dict.fromkeys(said))}")


def _persisted(file: File, source: str, part: BinaryIO, ways: Ways, on_bytes: OnBytes) -> str:
    """Fetch and check, retrying as needed. Returns the file's hash."""
    tries = _Tries(ways.tries, ways.pause_s, ways.max_pause_s)

    def heard(there_bytes: int) -> None:
        on_bytes(file.path, there_bytes, file.expected_bytes)

    def attempt() -> str:
        anew = part.seek(0, 2) == 0  # otherwise the wrong bytes may be from an earlier source
        try:
            promise = fetch(source, part, _most_bytes(file), ways.allow_private, ways.stop, heard)
            return _checked(file, part, promise, ways.stop)
        except Wrong as error:
            tries.wrong += anew
            if tries.wrong == MAX_WRONG:
                raise Absent(str(error)) from error
            raise
        finally:
            tries.furthest(part.seek(0, 2))

    try:
        return Retrying(
            retry=retry_if_exception_type(Broken),
            stop=tries.are_over,
            wait=tries.pause_s,
            sleep=lambda seconds: _rest(seconds, ways.stop),
            reraise=True,
        )(attempt)
    except Broken as error:
        raise Down(f"{error} (tried {tries.made} times)") from error


def _checked(file: File, part: BinaryIO, promise: Promise, stop: threading.Event) -> str:
    """The part's hash. A wrong part is discarded: no byte of it can be trusted."""
    part.flush()
    size_bytes = part.seek(0, 2)
    wanted_bytes, wanted = file.size_bytes or promise.size_bytes, file.sha256 or promise.sha256
    if wanted_bytes is not None and size_bytes < wanted_bytes:
        raise Broken(f"sent {size_bytes:,} of {wanted_bytes:,} bytes")
    found = sums.digest(Path(part.name), lambda _: _heed(stop))
    if (wanted_bytes is not None and size_bytes != wanted_bytes) or (wanted is not None and found != wanted):
        part.truncate(0)
        right = f"{wanted_bytes:,} bytes" if wanted is None else f"SHA-256 {wanted[:12]}…"
        raise Wrong(f"sent the wrong file: {size_bytes:,} bytes, SHA-256 {found[:12]}…; expected {right}")
    return found


def _most_bytes(file: File) -> int:
    return file.size_bytes or 2 * file.about_bytes + PROGRESS_BYTES


class _Tries:
    """Counts the tries in a row that made no progress."""

    def __init__(self, most: int, pause_s: float, max_pause_s: float) -> None:
        self.made = self.wrong = 0
        self._most, self._furthest_bytes = most, 0
        self._since = 0
        self._most_pause_s = max_pause_s
        self._random = wait_random_exponential(multiplier=pause_s, max=max_pause_s)

    def furthest(self, there_bytes: int) -> None:
        """A try has ended with this many bytes in the part."""
        self.made += 1
        self._since = 1 if there_bytes >= self._furthest_bytes + PROGRESS_BYTES else self._since + 1
        self._furthest_bytes = max(self._furthest_bytes, there_bytes)

    def are_over(self, _: RetryCallState) -> bool:
        return self._since >= self._most

    def pause_s(self, state: RetryCallState) -> float:
        asked = state.outcome.exception() if state.outcome else None
        asked_s = asked.retry_after_s if isinstance(asked, Broken) else 0.0
        return max(min(asked_s, self._most_pause_s), float(self._random(state)))


def _rest(seconds: float, stop: threading.Event) -> None:
    if stop.wait(seconds):
        raise Stopped


def _heed(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _there(path: Path) -> int:
    """Bytes of the file that are already on disk, complete or partial."""
    part = path.with_name(path.name + ".part")
    return max((each.stat().st_size for each in (path, part) if each.exists()), default=0)


def _note(folder: Path, outcomes: list[Outcome]) -> None:
    """Save the hashes of files for which the manifest has none, for `verify`."""
    new = {outcome.path: outcome.said for outcome in outcomes if outcome.state == "fetched" and outcome.said}
    if new:
        sums.write(folder / verify.FETCHED, sums.read(folder / verify.FETCHED) | new)
