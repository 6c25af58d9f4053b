"""The pictures of a person's video: read in batches on the device, numbered from 0, and what is kept of them for a second look.

Decoding takes longer than most of what is done with a picture, and whole pictures of ten seconds do not fit into memory; the
surroundings of a face do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from inference.engines import card
from inference.engines.musetalk.ahead import Ahead
from inference.engines.musetalk.boxes import Box
from media import video
from media.still import Picture

#: What is kept of a video's pictures may take this much; if it would take more, they are decoded again.
KEPT_BYTES = 256 << 20
#: What one batch of pictures may take.
BATCH_BYTES = 128 << 20
#: Batches that are decoded ahead.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Consecutive pictures. seen: (n, h, w, 3) uint8 RGB on the device; `pictures` are the same in the host's memory."""

    first: int
    seen: torch.Tensor
    pictures: list[Picture]

    def __len__(self) -> int:
        return len(self.seen)


@dataclass(frozen=True)
class View:
    """A part of a picture, or all of it. pixels: (h, w, 3) uint8 RGB on the device; the first one is (x, y) of the picture."""

    x: int
    y: int
    pixels: torch.Tensor


class Pictures:
    """The first `count` pictures of a clip, or all if there are fewer. waiting is called while there is none yet."""

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
        """All of them from the start, `size` or fewer at once; to be closed, which ends its thread."""
        size = max(1, min(size, BATCH_BYTES // (self._clip.width * self._clip.height * 3)))
        first = 0
        with Ahead(self._decoded(size), AHEAD, "decode", self._waiting) as coming:
            for pictures in coming:
                yield Batch(first, card.sent(np.stack(pictures), self._device), pictures)
                first += len(pictures)

    def keep(self, number: int, picture: Picture, part: Box) -> None:
        """Remember this part of a picture for `views`, if there is room for it."""
        inside = part.cut(*self.size)
        pixels = picture[inside.y1 : inside.y2, inside.x1 : inside.x2]
        self._left_bytes -= pixels.nbytes
        if self._left_bytes < 0:
            self._kept.clear()
        else:
            self._kept[number] = inside, pixels.copy()

    def views(self, wanted: Sequence[Box | None], size: int) -> Generator[list[View | None], None, None]:
        """Views of the pictures from the start, `size` or fewer at once, each with all that is wanted of the picture; decoded
        again unless that was kept of each. To be closed as well."""
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

    def _decoded(self, size: int) -> Iterator[list[Picture]]:
        """Reads one picture more than is wanted, to know whether there are more."""
        with closing(video.pictures(self._clip)) as coming:  # type: ignore[type-var]
            left = self._count
            while left > 0 and (pictures := list(itertools.islice(coming, min(size, left)))):
                left -= len(pictures)
                yield pictures
            self.whole = left > 0 or next(coming, None) is None
