"""Whether the weights that lie under MODELS_DIR are what they should be, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weights import manifest, sums
from weights.manifest import File

#: Hashes of files that the manifest knows none of, as the hub named them when they were fetched; under MODELS_DIR.
FETCHED = "fetched.sha256"

State = Literal["good", "missing", "wrong", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """path under MODELS_DIR. good: the hash is right; unknown: nothing to compare it with; `said`: why, fit for the user."""

    path: str
    state: State
    said: str = ""
    size_bytes: int = 0


def verify(folder: Path, engine: str, tick: Callable[[int], None] = lambda count: None) -> list[Verdict]:
    """A verdict on each file of an engine, published and converted, but for those that are missing and need not be there since
    converted ones stand for them. Reads every byte; `tick` hears of each MiB."""
    published = [_or_elsewhere(folder, check(folder, file, tick)) for file in manifest.ENGINES[engine]]
    return _together(published, converted(folder, engine, tick)) + _instead(folder, engine)


def converted(folder: Path, engine: str, tick: Callable[[int], None] = lambda count: None) -> list[Verdict]:
    """A verdict on each file that `worker models convert` has written, held to its own list."""
    home = folder / manifest.CONVERTED.get(engine, engine)
    remedy = f"`worker models convert {engine}` writes it"
    listed = [(f"{home.name}/{name}", digest) for name, digest in sums.read(home / manifest.SUMS).items()]
    return [_judge(folder / path, path, None, digest, remedy, tick) for path, digest in listed]


def stood_for(verdicts: list[Verdict]) -> frozenset[str]:
    """The paths of published files that need not be there, since their converted ones are good by these verdicts."""
    good = {verdict.path for verdict in verdicts if verdict.state == "good"}
    return frozenset(path for path, written in manifest.BECOMES.items() if good.issuperset(written))


def look(folder: Path, engine: str) -> list[Verdict]:
    """As `verify`, by name and size alone, which takes no time: good means that the size is right."""
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
        return Verdict(file.path, "wrong", f"has {there:,} bytes, {file.size_bytes:,} are right; {remedy}", there)
    return Verdict(file.path, "good", "", there)


def check(folder: Path, file: File, tick: Callable[[int], None] = lambda count: None) -> Verdict:
    """A verdict on one published file."""
    digest = file.sha256 or sums.read(folder / FETCHED).get(file.path)
    return _judge(folder / file.path, file.path, file.size_bytes, digest, "`worker models pull` fetches it", tick)


def needed(verdicts: list[Verdict], engine: str, chosen: frozenset[str] = frozenset()) -> list[Verdict]:
    """Those that stand against running the engine: wrong ones, and missing ones that are not optional, or are `chosen`.

    No published file need be there where others lie that the engine reads instead.
    """
    others = manifest.INSTEAD.get(engine, ())
    replaced = any(verdict.path.split("/")[0] in others for verdict in verdicts)
    optional = {file.path for file in manifest.ENGINES[engine] if file.optional or replaced} - chosen
    return [v for v in verdicts if v.state == "wrong" or (v.state == "missing" and v.path not in optional)]


def _or_elsewhere(folder: Path, verdict: Verdict) -> Verdict:
    """In place of a file that is missing the one that the engine takes in its stead, if that is there."""
    others = manifest.places(verdict.path)[1:] if verdict.state == "missing" else ()
    there = next((path for path in others if (folder / path).is_file()), None)
    return verdict if there is None else _unlisted(folder, there)


def _unlisted(folder: Path, path: str) -> Verdict:
    return Verdict(path, "unknown", "no hash is known for it", (folder / path).stat().st_size)


def _instead(folder: Path, engine: str) -> list[Verdict]:
    """What lies in the folders that the engine reads instead: there, and no more can be said."""
    there = [path for name in manifest.INSTEAD.get(engine, ()) for path in sorted((folder / name).rglob("*")) if path.is_file()]
    return [
        _unlisted(folder, str(path.relative_to(folder))) for path in there if path.suffix in (".json", ".safetensors", ".model")
    ]


def _judge(path: Path, name: str, size: int | None, digest: str | None, remedy: str, tick: Callable[[int], None]) -> Verdict:
    try:
        there = path.stat().st_size
        if size is not None and there != size:
            return Verdict(name, "wrong", f"has {there:,} bytes, {size:,} are right; {remedy}", there)
        if digest is None:
            return Verdict(name, "unknown", "no hash is known for it", there)
        found = sums.digest(path, tick)
    except FileNotFoundError:
        return Verdict(name, "missing", f"is missing; {remedy}")
    except OSError as error:
        return Verdict(name, "wrong", f"cannot be read: {(error.strerror or str(error)).lower()}; {remedy}")
    if found != digest:
        return Verdict(name, "wrong", f"has other bytes (SHA-256 {found[:12]}…, {digest[:12]}… is right); {remedy}", there)
    return Verdict(name, "good", "", there)
