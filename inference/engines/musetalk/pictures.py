"""The frames of a person's video: read in batches onto the device, numbered from 0, with the parts kept for a second pass.

Decoding takes longer than most processing of a frame. Ten seconds of whole frames do not fit in memory, but the areas around
a face do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card
from inference.engines.musetalk.ahead import Ahead
from inference.engines.musetalk.boxes import Box
from media import video
from media.still import Picture

#: The memory limit for the kept parts of a video; beyond it, frames are decoded again.
KEPT_BYTES = 256 << 20
#: The memory limit for one batch of frames.
BATCH_BYTES = 128 << 20
#: Batches that are decoded ahead.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Consecutive frames. seen: (n, h, w, 3) uint8 RGB on the device; `pictures`: the same in host memory."""

    first: int
    seen: torch.Tensor
    pictures: list[Picture]

    def __len__(self) -> int:
        return len(self.seen)


@dataclass(frozen=True)
class View:
    """Part or all of a frame. pixels: (h, w, 3) uint8 RGB on the device; the top left one is (x, y) of the frame."""

    x: int
    y: int
    pixels: torch.Tensor


class Pictures:
    """The first `count` frames of a clip, or all if there are fewer. waiting is called while none is ready."""

    def __init__(
        self,
        clip: video.Clip,
        count: int,
        device: torch.device,
        waiting: Callable[[], None],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._clip, self._device, self._waiting = clip, device, waiting
        self._count = 1 if clip.is_still else count
        self._kept: dict[int, tuple[Box, Picture]] = {}
        self._left_bytes = kept_bytes
        self.size = clip.width, clip.height
        self.whole = False  # known after the first reading

    def batches(self, size: int) -> Generator[Batch, None, None]:
        """All frames from the start, at most `size` per batch. The caller must close it, which ends its thread."""
        size = max(1, min(size, BATCH_BYTES // (self._clip.width * self._clip.height * 3)))
        first = 0
        with Ahead(self._decoded(size), AHEAD, "decode", self._waiting) as coming:
            for pictures, stacked in coming:
                yield Batch(first, card.sent(stacked, self._device), pictures)
                first += len(pictures)

    def keep(self, number: int, picture: Picture, part: Box) -> None:
        """Keep this part of a frame for `views`, if the memory limit allows."""
        inside = part.cut(*self.size)
        pixels = picture[inside.y1 : inside.y2, inside.x1 : inside.x2]
        self._left_bytes -= pixels.nbytes
        if self._left_bytes < 0:
            self._kept.clear()
        else:
            self._kept[number] = inside, pixels.copy()

    def views(self, wanted: Sequence[Box | None], size: int) -> Generator[list[View | None], None, None]:
        """Views of the frames from the start, at most `size` per batch, each containing the wanted box. Frames are decoded
        again unless all wanted parts were kept. The caller must close it too."""
        if all(part is None or self._has(number, part) for number, part in enumerate(wanted)):
            numbers = range(len(wanted))
            for first in range(0, len(wanted), size):
                yield [self._view(number) if wanted[number] else None for number in numbers[first : first + size]]
        else:
            with closing(self.batches(size)) as batches:
                for batch in batches:
                    yield [View(0, 0, pixels) for pixels in batch.seen]

    def _has(self, number: int, part: Box) -> bool:
        inside = part.cut(*self.size)
        kept = self._kept[number][0] if number in self._kept else Box(0, 0, 0, 0)
        return kept.x1 <= inside.x1 and kept.y1 <= inside.y1 and inside.x2 <= kept.x2 and inside.y2 <= kept.y2

    def _view(self, number: int) -> View:
        part, pixels = self._kept[number]
        return View(part.x1, part.y1, card.sent(pixels, self._device))

    def _decoded(self, size: int) -> Iterator[tuple[list[Picture], NDArray[np.uint8]]]:
        """Batches, as a list and as one array. Reads one frame more than needed, to know whether there are more."""
        with closing(video.pictures(self._clip)) as coming:  # type: ignore[type-var]
            left = self._count
            while left > 0 and (pictures := list(itertools.islice(coming, min(size, left)))):
                left -= len(pictures)
                yield pictures, np.stack(pictures)
            self.whole = left > 0 or next(coming, None) is None
