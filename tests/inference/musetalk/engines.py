"""What the tests of the whole engine share: a loaded one, small clips and sounds, and a way to run a job."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine import Inputs, Metrics, Options
from inference.engines.fused import When
from inference.engines.musetalk import mouths, resize
from inference.engines.musetalk.engine import Engine
from inference.engines.musetalk.models import Models
from media import video, write
from media.still import Picture
from tests.fakes import made_up_card
from tests.media import files

#: Runs a job: the file it made and what it says about it.
Say = Callable[..., tuple[Path, Metrics]]

#: The side of the clips' pictures. The fakes' detector sees a face of this size wherever a picture is bright.
SIDE = 128


@contextmanager
def another_card() -> Iterator[Any]:
    """A made-up card; what is kept for each device is forgotten with it, since the next one has the same name."""
    kept = mouths._positions, resize.by_channel
    with made_up_card.inserted(total_bytes=10**11) as card:
        for each in kept:
            each.cache_clear()
        yield card
        for each in kept:
            each.cache_clear()


def ignore(phase: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def loaded(weights: Path, device: str = "cpu", **options: Any) -> Engine:
    engine = Engine()
    engine.configure(Options(**options))
    engine.use(_networks(weights, device, options.get("compile", "first")), str(weights))
    engine.warm_up()
    return engine


@functools.cache
def _networks(weights: Path, device: str, compile: When) -> dict[str, Models]:
    """Read once: nobody changes a network, `use` puts another one in its place."""
    reader = Engine()
    reader.configure(Options(compile=compile))
    reader.load(weights, device)
    return reader._models


def run(engine: Engine, output: Path, source: Path, speech: Path, said: dict[str, Any] | None = None, **fields: Any) -> Metrics:
    prepared = engine.prepare(Inputs(video=source, audio=speech, fields=fields), said or {}, ignore)
    return engine.generate(prepared, output, ignore)


def use(engine: Engine, **networks: Any) -> None:
    """Put other networks into a loaded engine."""
    engine.use({version: replace(found, **networks) for version, found in engine._models.items()})
    engine.warm_up()


def clip(path: Path, levels: list[int], size: tuple[int, int] = (SIDE, SIDE), rate: Fraction | int = 25) -> Path:
    """A video of plain pictures of these brightnesses; the fakes see a face in those above 140."""
    width, height = size
    pictures = (np.full((height, width, 3), level, np.uint8) for level in levels)
    write.write(path, pictures, rate=Fraction(rate), speech=None)
    return path


def waves(path: Path, levels: list[float]) -> Path:
    """A video of pictures with some texture, each that bright (0 to 1). Of a plain one the networks would see only its
    rounding errors, made large by their norms."""
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.stack([190 + 50 * np.sin(x / 5 + phase) * np.cos(y / 7 - phase) for phase in range(3)], 2)
    write.write(path, ((picture * level).astype(np.uint8) for level in levels), rate=Fraction(25), speech=None)
    return path


def tone(path: Path, seconds: float, **how: Any) -> Path:
    return files.sound(path, seconds=seconds, **how)


def pictures(path: Path) -> list[Picture]:
    return list(video.pictures(video.open_clip(path)))


def levels(path: Path) -> list[int]:
    """How bright each picture is in its upper left corner, which nothing changes."""
    return [round(float(picture[:8, :8].mean())) for picture in pictures(path)]


def changed(picture: Picture) -> bool:
    """Whether a plain picture got a new face."""
    return bool(np.abs(picture.astype(int) - np.median(picture[:8, :8])).max() > 30)
