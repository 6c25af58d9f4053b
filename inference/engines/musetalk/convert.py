"""Writes the published files anew as one folder of safetensors: half the bytes, mapped into memory, nothing to unpickle.

    python -m inference.engines.musetalk.convert MODELS_DIR

What makes the picture (UNet, VAE) is written in 16 bits, which is what it runs in on a GPU. What only looks and listens stays
in 32: it is an eighth of the bytes, and half a bin of a landmark is visible in the picture. A tensor that 16 bits cannot hold
stays in 32 as well. Left out: whisper's decoder, the parser's training heads, what a training run left beside the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from errors import EngineFailed, JobError, Unavailable
from inference.engines import checkpoints
from inference.engines.musetalk import layout
from inference.engines.musetalk.models import part_of
from weights import sums
from weights.manifest import SUMS

#: What makes the picture; everything else stays in 32 bits.
_HALVED = ("unet-1.5", "unet-1.0", "vae")


def convert(folder: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Write what is published under `folder` to its folder of converted files. Returns file name -> SHA-256.

    Every version that is there is converted; one must be. Raises EngineFailed for a file that is missing or wrong,
    Unavailable for a disk that is too full. A file is there whole or as it was before.
    """
    versions = [version for version in ("1.5", "1.0") if not _missing(folder, version)]
    if not versions:
        raise EngineFailed(_missing(folder, "1.5")[0])
    names = [f"unet-{version}" for version in versions] + [name for name in layout.PARTS if not name.startswith("unet-")]
    target = folder / layout.CONVERTED
    target.mkdir(exist_ok=True)
    _check_room(target, [layout.published(folder, name).weights for name in names])
    made: dict[str, str] = {}
    for name in names:
        found = layout.published(folder, name)
        made |= _written(target, name, found)
        say(f"wrote {name}: {(target / f'{name}.safetensors').stat().st_size:,} bytes")
    sums.write(target / SUMS, made)
    return made


def _missing(folder: Path, version: str) -> list[str]:
    return layout.missing(folder, version, layout.published)


def _written(target: Path, name: str, found: layout.Found) -> dict[str, str]:
    """One network's files, in the target folder under their own names."""
    state = part_of(name, checkpoints.read(found.weights, found.remedy))
    if not state:
        raise EngineFailed(f"{found.weights}: is not the file it should be: none of its layers is there; {found.remedy}")
    kept = {key: _narrowed(value, name in _HALVED) for key, value in state.items() if not key.endswith(".num_batches_tracked")}
    path = target / f"{name}.safetensors"
    part = path.with_name(path.name + ".part")
    try:
        save_file(kept, part, metadata={"format": "pt"})
        part.chmod(_usual_mode())  # it is its writer's alone, who may be root
        paths = [path]
        if found.config:
            paths.append(target / f"{name}.json")
            shutil.copyfile(found.config, paths[1].with_name(paths[1].name + ".part"))
        for written in reversed(paths):  # the weights last: with them the network is there
            sums.keep(written.with_name(written.name + ".part"), written)
    except OSError as error:
        raise Unavailable(f"{path}: could not be written: {(error.strerror or str(error)).lower()}") from error
    return {written.name: sums.digest(written) for written in paths}


def _usual_mode() -> int:
    """What a new file's mode is by this process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _narrowed(tensor: Tensor, halved: bool) -> Tensor:
    if not halved or tensor.dtype != torch.float32:
        return tensor.clone(memory_format=torch.contiguous_format)
    half = tensor.to(torch.float16, memory_format=torch.contiguous_format)
    return half if bool(half.isfinite().all()) else tensor.clone(memory_format=torch.contiguous_format)


def _check_room(target: Path, weights: list[Path]) -> None:
    """At most what was published is needed: more than enough, and known without reading."""
    needed, free = sum(path.stat().st_size for path in weights), shutil.disk_usage(target).free
    if free < needed:
        raise Unavailable(f"{target}: {free / 1e9:.1f} GB are free, up to {needed / 1e9:.1f} GB are needed")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write MuseTalk's published weights as safetensors.")
    parser.add_argument("folder", type=Path, help="MODELS_DIR")
    try:
        made = convert(parser.parse_args().folder, lambda line: print(line, file=sys.stderr))
    except JobError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
