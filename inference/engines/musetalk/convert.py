"""Converts the published files to one folder of safetensors: half the bytes, memory-mapped, nothing to unpickle.

    python -m inference.engines.musetalk.convert MODELS_DIR

The networks that generate (UNet, VAE) are written in 16 bits, which is how they run on a GPU. The networks that only analyse
stay in 32: they are an eighth of the bytes, and half a bin of a landmark is visible in the output. A tensor that does not fit
16 bits stays in 32 as well. Left out: Whisper's decoder, the parser's training heads, and other training leftovers.
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

#: The networks that generate; everything else stays in 32 bits.
_HALVED = ("unet-1.5", "unet-1.0", "vae")


def convert(folder: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Convert the published files under `folder` into its folder of converted files. Returns file name -> SHA-256.

    Converts every version that is installed; at least one must be. Raises EngineFailed for a missing or wrong file,
    Unavailable if the disk is too full. Each file is replaced atomically.
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
    """One network's files, written to the target folder under their own names."""
    state = part_of(name, checkpoints.read(found.weights, found.remedy))
    if not state:
        raise EngineFailed(f"{found.weights}: is not the expected file: it has none of the network's layers; {found.remedy}")
    kept = {key: _narrowed(value, name in _HALVED) for key, value in state.items() if not key.endswith(".num_batches_tracked")}
    path = target / f"{name}.safetensors"
    part = path.with_name(path.name + ".part")
    try:
        save_file(kept, part, metadata={"format": "pt"})
        part.chmod(_usual_mode())  # created private to the writer, who may be root
        paths = [path]
        if found.config:
            paths.append(target / f"{name}.json")
            shutil.copyfile(found.config, paths[1].with_name(paths[1].name + ".part"))
        for written in reversed(paths):  # the weights last: once they exist, the network counts as installed
            sums.keep(written.with_name(written.name + ".part"), written)
    except OSError as error:
        raise Unavailable(f"{path}: could not be written: {(error.strerror or str(error)).lower()}") from error
    return {written.name: sums.digest(written) for written in paths}


def _usual_mode() -> int:
    """The mode of new files under this process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _narrowed(tensor: Tensor, halved: bool) -> Tensor:
    if not halved or tensor.dtype != torch.float32:
        return tensor.clone(memory_format=torch.contiguous_format)
    half = tensor.to(torch.float16, memory_format=torch.contiguous_format)
    return half if bool(half.isfinite().all()) else tensor.clone(memory_format=torch.contiguous_format)


def _check_room(target: Path, weights: list[Path]) -> None:
    """The published size is an upper bound on what is needed, known without reading the files."""
    needed, free = sum(path.stat().st_size for path in weights), shutil.disk_usage(target).free
    if free < needed:
        raise Unavailable(f"{target}: {free / 1e9:.1f} GB free, up to {needed / 1e9:.1f} GB needed")


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
