"""Where FastWan's files lie under MODELS_DIR, and whether each is whole; nothing is loaded here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import EngineFailed
from weights import manifest

#: The published folders that are accepted, by their own names; the first one is what `worker models pull` fetches.
FOLDERS = manifest.FASTWAN_FOLDERS
#: A network's folder and how its files begin: diffusers and transformers name them differently.
STEMS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
#: What the tokenizer is read from; out of `spiece.model` beside it one could only be made with a library more.
TOKENIZER = "tokenizer/tokenizer.json"
FETCHED = "`worker models pull fastwan` fetches it"
#: The tiny decoder's file, which only FASTWAN_DECODER=tiny needs.
TINY = manifest.TINY
#: The longest header that a file of weights may have, in bytes; the published ones have under 100 kB.
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Part:
    """One network: its folder, its configuration, and its files of weights, all there and whole."""

    folder: Path
    config: dict[str, Any]
    files: tuple[Path, ...]


def home(models: Path) -> Path:
    """The folder of the published repository: one of FOLDERS, or `models` itself. The first of FOLDERS if none is there."""
    for folder in (*(models / name for name in FOLDERS), models):
        if (folder / "model_index.json").is_file():
            return folder
    return models / FOLDERS[0]


def missing(models: Path) -> list[str]:
    """One line for each file that is not there or not whole: its name, its size, and the command that fetches it."""
    folder, lines = home(models), []
    for name in STEMS:
        try:
            part(models, name)
        except EngineFailed as error:
            lines.append(error.message)
    try:
        _json(models, folder / TOKENIZER)
    except EngineFailed as error:
        lines.append(error.message)
    return lines


def missing_tiny(models: Path) -> list[str]:
    """The same for the tiny decoder. It says nowhere how long it should be: that it is whole shows when it is read."""
    path = models / TINY
    return [] if path.is_file() else [line(models, path, "is missing")]


def part(models: Path, name: str) -> Part:
    """The files of one network. Raises EngineFailed, one line, if one is missing or cut short."""
    folder = home(models) / name
    config = _json(models, folder / "config.json")
    index = folder / f"{STEMS[name]}.safetensors.index.json"
    names = [f"{STEMS[name]}.safetensors"]
    if index.is_file():
        names = sorted(set(_json(models, index).get("weight_map", {}).values()))
    files = tuple(folder / file for file in names)
    for file in files:
        _check_whole(models, file)
    return Part(folder, config, files)


def _check_whole(models: Path, path: Path) -> None:
    """A file of safetensors says in its header where its last tensor ends; a shorter one is found out without reading it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        ends = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except FileNotFoundError:
        raise EngineFailed(line(models, path, "is missing")) from None
    except OSError as error:
        raise EngineFailed(line(models, path, _unreadable(error))) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise EngineFailed(line(models, path, f"is not a file of safetensors ({size:,} bytes)")) from error
    if size != 8 + length + ends:
        raise EngineFailed(line(models, path, f"has {size:,} of {8 + length + ends:,} bytes"))


def _json(models: Path, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise EngineFailed(line(models, path, "is missing")) from None
    except OSError as error:
        raise EngineFailed(line(models, path, _unreadable(error))) from error
    except ValueError as error:
        raise EngineFailed(line(models, path, "is not JSON")) from error
    if not isinstance(found, dict):
        raise EngineFailed(line(models, path, "is not a JSON object"))
    return found


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({(error.strerror or str(error)).lower()})"


def line(models: Path, path: Path, what: str) -> str:
    """What is wrong with a file, and what to do."""
    return f"{path}: {what}; {remedy(models, path)}"


def remedy(models: Path, path: Path) -> str:
    """The size that a file should have, and how to get it."""
    return manifest.expected(path.relative_to(models).as_posix()) + FETCHED
