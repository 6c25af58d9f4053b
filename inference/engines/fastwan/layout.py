"""Where FastWan's files are under MODELS_DIR, and whether each is complete; nothing is loaded here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import EngineFailed
from weights import manifest

#: The names of the published folders that are accepted; `worker models pull` fetches the first.
FOLDERS = manifest.FASTWAN_FOLDERS
#: A network's folder -> the prefix of its files: diffusers and transformers use different ones.
STEMS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
#: The file that the tokenizer is read from; using `spiece.model` beside it would need another library.
TOKENIZER = "tokenizer/tokenizer.json"
FETCHED = "`worker models pull fastwan` fetches it"
#: The tiny decoder's file, which only FASTWAN_DECODER=tiny needs.
TINY = manifest.TINY
#: The longest header allowed in a weights file, in bytes; the published ones have under 100 kB.
MAX_HEADER = 100_000_000
#: The largest end offset allowed for a tensor: the limit of file systems.
MAX_FILE = 2**63
#: What an index may name: a plain file name, with no path; and how a shard's name gives the number of shards.
PLAIN_NAME = re.compile(r"\w[\w.-]{0,200}")
ONE_OF_SEVERAL = re.compile(r".+-of-(\d{1,9})\.safetensors")


@dataclass(frozen=True)
class Part:
    """One network: its folder, its configuration, and its weights files, all present and complete."""

    folder: Path
    config: dict[str, Any]
    files: tuple[Path, ...]


def home(models: Path) -> Path:
    """The folder of the published repository: one of FOLDERS, or `models` itself; the first of FOLDERS if none exists."""
    for folder in (*(models / name for name in FOLDERS), models):
        if (folder / "model_index.json").is_file():
            return folder
    return models / FOLDERS[0]


def missing(models: Path) -> list[str]:
    """One line for each file that is missing or incomplete: its name, its size, and the command that fetches it."""
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
    """The same for the tiny decoder. Its file does not state its length, so an incomplete one is only found on reading."""
    path = models / TINY
    return [] if path.is_file() else [line(models, path, "is missing")]


def part(models: Path, name: str) -> Part:
    """The files of one network. Raises EngineFailed, one line, if one is missing or incomplete."""
    folder = home(models) / name
    config = _json(models, folder / "config.json")
    index = folder / f"{STEMS[name]}.safetensors.index.json"
    files: tuple[Path, ...] = (folder / f"{STEMS[name]}.safetensors",)
    if index.is_file():
        files = tuple(folder / file for file in _named(models, index))
    for file in files:
        _check_whole(models, file)
    return Part(folder, config, files)


def _named(models: Path, index: Path) -> list[str]:
    """The shards named in an index; checks that the names are plain and that none is missing."""
    found = _json(models, index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise EngineFailed(line(models, index, "has no weight_map that names files"))
    for name in found.values():
        if not (isinstance(name, str) and PLAIN_NAME.fullmatch(name)):
            raise EngineFailed(line(models, index, f"names {name!r:.80}, may only name files in its own folder"))
    names = sorted(set(found.values()))
    said = ONE_OF_SEVERAL.fullmatch(names[0])
    if said and len(names) != int(said[1]):
        raise EngineFailed(line(models, index, f"names {len(names)} of {int(said[1])} files"))
    return names


def _check_whole(models: Path, path: Path) -> None:
    """Compare the file's size with its safetensors header, which says where the last tensor ends; tensors are not read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        ends = max((_end(entry) for name, entry in header.items() if name != "__metadata__"), default=0)
    except FileNotFoundError:
        raise EngineFailed(line(models, path, "is missing")) from None
    except OSError as error:
        raise EngineFailed(line(models, path, _unreadable(error))) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise EngineFailed(line(models, path, f"is not a safetensors file ({size:,} bytes)")) from error
    if size != 8 + length + ends:
        raise EngineFailed(line(models, path, f"has {size:,} of {8 + length + ends:,} bytes"))


def _end(entry: Any) -> int:
    """The end offset of a tensor, from its header entry."""
    found = entry["data_offsets"][1]
    if type(found) is not int or not 0 <= found < MAX_FILE:
        raise ValueError("not a file offset")
    return found


def _json(models: Path, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise EngineFailed(line(models, path, "is missing")) from None
    except OSError as error:
        raise EngineFailed(line(models, path, _unreadable(error))) from error
    except (ValueError, RecursionError) as error:
        raise EngineFailed(line(models, path, "is not JSON")) from error
    if not isinstance(found, dict):
        raise EngineFailed(line(models, path, "is not a JSON object"))
    return found


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({(error.strerror or str(error)).lower()})"


def line(models: Path, path: Path, what: str) -> str:
    """A message: what is wrong with a file, and what to do."""
    return f"{path}: {what}; {remedy(models, path)}"


def remedy(models: Path, path: Path) -> str:
    """The file's expected size, and how to get it."""
    return manifest.expected(path.relative_to(models).as_posix()) + FETCHED
