"""Where each network's file is under MODELS_DIR: as published, or in the single folder that `convert` writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from errors import EngineFailed
from weights import manifest

#: The folder of converted files, under MODELS_DIR.
CONVERTED = manifest.CONVERTED["musetalk"]
#: How to get a published file, and a converted one.
FETCHED = "`worker models pull musetalk` fetches it"
WRITTEN = "`worker models convert musetalk` writes it again"


@dataclass(frozen=True)
class Part:
    """One network: its published weights and configuration files, in order of preference."""

    weights: tuple[str, ...]
    configs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Where they are. A remedy ends an error message about a wrong file: its expected size, and how to get it."""

    weights: Path
    config: Path | None
    remedy: str
    config_remedy: str


PARTS = {
    "unet-1.5": Part(manifest.places("musetalkV15/unet.pth"), manifest.places("musetalkV15/musetalk.json")),
    "unet-1.0": Part(manifest.places("musetalk/pytorch_model.bin"), manifest.places("musetalk/musetalk.json")),
    "vae": Part(manifest.places("sd-vae/diffusion_pytorch_model.bin"), manifest.places("sd-vae/config.json")),
    "whisper": Part(manifest.places("whisper/pytorch_model.bin"), manifest.places("whisper/config.json")),
    "pose": Part(manifest.places("dwpose/dw-ll_ucoco_384.pth")),
    "detector": Part(manifest.places("s3fd/s3fd-619a316812.pth")),
    "parser": Part(manifest.places("face-parse-bisent/79999_iter.pth")),
}


#: Files set by an older environment variable instead, by network; see `look_elsewhere`.
_ELSEWHERE: dict[str, Part] = {}


def look_elsewhere(name: str, weights: Path | None, config: Path | None) -> None:
    """Use these files of a network, wherever they are, instead of any in MODELS_DIR; None: what is next to the other file or in
    MODELS_DIR. Called once, before anything is loaded."""
    part = PARTS[name]
    beside = tuple(str(weights.absolute().parent / Path(path).name) for path in part.configs) if weights else ()
    _ELSEWHERE[name] = Part(
        (str(weights.absolute()),) if weights else part.weights,
        (str(config.absolute()),) if config else (*beside, *part.configs),
    )


def parts_of(version: str) -> list[str]:
    """The networks that a version of MuseTalk needs."""
    return [f"unet-{version}", *(name for name in PARTS if not name.startswith("unet-"))]


def find(folder: Path, name: str) -> Found:
    """The files of one network, converted ones first. Raises EngineFailed, one line, if one is missing."""
    if name in _ELSEWHERE:
        return _found(folder, _ELSEWHERE[name])
    for home in (folder, folder / CONVERTED):
        weights, config = home / f"{name}.safetensors", home / f"{name}.json"
        if weights.is_file() and (config.is_file() or not PARTS[name].configs):
            return Found(weights, config if PARTS[name].configs else None, WRITTEN, WRITTEN)
    return published(folder, name)


def published(folder: Path, name: str) -> Found:
    """The files of one network as published. Raises EngineFailed, one line, if one is missing."""
    return _found(folder, PARTS[name])


def _found(folder: Path, part: Part) -> Found:
    weights = _first(folder, part.weights)
    config = _first(folder, part.configs) if part.configs else None
    return Found(weights, config, _remedy(folder, weights), _remedy(folder, config or weights))


def missing(folder: Path, version: str = "1.5", where: Callable[[Path, str], Found] = find) -> list[str]:
    """One line for each missing file of a version: its name, size, and the command that fetches it."""
    lines = []
    for name in parts_of(version):
        try:
            where(folder, name)
        except EngineFailed as error:
            lines.append(error.message)
    return lines


def _first(folder: Path, paths: tuple[str, ...]) -> Path:
    """The first of these that exists."""
    for path in paths:
        if (folder / path).is_file():
            return folder / path
    raise EngineFailed(f"{folder / paths[0]}: is missing; {_remedy(folder, folder / paths[0])}")


def _remedy(folder: Path, path: Path) -> str:
    if not path.is_relative_to(folder):
        return "MUSETALK_UNET_MODEL_PATH or MUSETALK_UNET_CONFIG sets this path; without them, MODELS_DIR is searched"
    return manifest.expected(path.relative_to(folder).as_posix()) + FETCHED
