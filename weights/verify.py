"""Verifies the weights under MODELS_DIR, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weights import manifest, sums
from weights.manifest import File

#: Hashes that the hub sent with files for which the manifest has none; under MODELS_DIR.
FETCHED = "fetched.sha256"

State = Literal["good", "missing", "wrong", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """path under MODELS_DIR. good: the hash matches; unknown: nothing to compare with. said: the reason, for the user."""

    path: str
    state: State
    said: str = ""
    size_bytes: int = 0


def verify(folder: Path, engine: str, tick: Callable[[int], None] = lambda count: None) -> list[Verdict]:
    """A verdict on each file of an engine, published and converted, except missing published files that are replaced by
    converted ones. Reads every byte; `tick` is called for each MiB."""
    published = [_or_elsewhere(folder, check(folder, file, tick)) for file in manifest.ENGINES[engine]]
    return _together(published, converted(folder, engine, tick)) + _instead(folder, engine)


def converted(folder: Path, engine: str, tick: Callable[[int], None] = lambda count: None) -> list[Verdict]:
    """A verdict on each file that `worker models convert` has written, checked against its own list."""
    home = folder / manifest.CONVERTED.get(engine, engine)
    remedy = f"`worker models convert {engine}` writes it"
    listed = [(f"{home.name}/{name}", digest) for name, digest in sums.read(home / manifest.SUMS).items()]
    return [_judge(folder / path, path, None, digest, remedy, tick) for path, digest in listed]


def stood_for(verdicts: list[Verdict]) -> frozenset[str]:
    """The paths of published files that may be missing, since these verdicts say their converted ones are good."""
    good = {verdict.path for verdict in verdicts if verdict.state == "good"}
    return frozenset(path for path, written in manifest.BECOMES.items() if good.issuperset(written))


def look(folder: Path, engine: str) -> list[Verdict]:
    """Like `verify`, but by name and size only, which is fast: good means that the size matches."""
    home = folder / manifest.CONVERTED.get(engine, engine)
    published = [_or_elsewhere(folder, _looked_at(folder, file)) for file in manifest.ENGINES[engine]]
    written = [_looked_at(folder, File(path=f"{home.name}/{name}")) for name in sums.read(home / manifest.SUMS)]
    return _together(published, written) + _instead(folder, engine)


def _together(published: list[Verdict], written: list[Verdict]) -> list[Verdict]:
    there = stood_for(written)
    return [each for each in published if each.state != "missing" or each.path not in there] + written


def _looked_at(folder: Path, file: File) -> Verdict:
    remedy = "`worker models pull` fetches it"
    try:
        there = (folder / file.path).stat().st_size
    except OSError:
        return Verdict(file.path, "missing", f"is missing; {remedy}")
    if file.size_bytes is not None and there != file.size_bytes:
        return Verdict(file.path, "wrong", f"has {there:,} bytes, expected {file.size_bytes:,}; {remedy}", there)
    return Verdict(file.path, "good", "", there)


def check(folder: Path, file: File, tick: Callable[[int], None] = lambda count: None) -> Verdict:
    """A verdict on one published file."""
    digest = file.sha256 or sums.read(folder / FETCHED).get(file.path)
    return _judge(folder / file.path, file.path, file.size_bytes, digest, "`worker models pull` fetches it", tick)


def needed(verdicts: list[Verdict], engine: str, chosen: frozenset[str] = frozenset()) -> list[Verdict]:
    """Those that prevent the engine from running: wrong files, and missing ones that are not optional or are `chosen`.

    Published files may be missing if there are others that the engine reads instead.
    """
    others = manifest.INSTEAD.get(engine, ())
    replaced = any(verdict.path.split("/")[0] in others for verdict in verdicts)
    optional = {file.path for file in manifest.ENGINES[engine] if file.optional or replaced} - chosen
    return [v for v in verdicts if v.state == "wrong" or (v.state == "missing" and v.path not in optional)]


def _or_elsewhere(folder: Path, verdict: Verdict) -> Verdict:
    """For a missing file, the one that the engine reads instead, if it exists."""
    others = manifest.places(verdict.path)[1:] if verdict.state == "missing" else ()
    there = next((path for path in others if (folder / path).is_file()), None)
    return verdict if there is None else _unlisted(folder, there)


def _unlisted(folder: Path, path: str) -> Verdict:
    return Verdict(path, "unknown", "no hash is known for it", (folder / path).stat().st_size)


def _instead(folder: Path, engine: str) -> list[Verdict]:
    """Files in the folders that the engine reads instead: present, but there are no hashes for them."""
    there = [path for name in manifest.INSTEAD.get(engine, ()) for path in sorted((folder / name).rglob("*")) if path.is_file()]
    return [
        _unlisted(folder, str(path.relative_to(folder))) for path in there if path.suffix in (".json", ".safetensors", ".model")
    ]


def _judge(path: Path, name: str, size: int | None, digest: str | None, remedy: str, tick: Callable[[int], None]) -> Verdict:
    try:
        there = path.stat().st_size
        if size is not None and there != size:
            return Verdict(name, "wrong", f"has {there:,} bytes, expected {size:,}; {remedy}", there)
        if digest is None:
            return Verdict(name, "unknown", "no hash is known for it", there)
        found = sums.digest(path, tick)
    except FileNotFoundError:
        return Verdict(name, "missing", f"is missing; {remedy}")
    except OSError as error:
        return Verdict(name, "wrong", f"cannot be read: {(error.strerror or str(error)).lower()}; {remedy}")
    if found != digest:
        said = f"has the wrong checksum (SHA-256 {found[:12]}…, expected {digest[:12]}…); {remedy}"
        return Verdict(name, "wrong", said, there)
    return Verdict(name, "good", "", there)
