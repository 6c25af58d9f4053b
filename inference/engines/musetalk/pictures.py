"""The pictures of a person's video, read as often as they are needed, in batches on the device, numbered from 0."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from inference.engines.musetalk.ahead import Ahead
from media import video
from media.still import Picture

#: A video whose pictures take no more than this is decoded once and kept while it is looked at; others are decoded again.
KEPT_BYTES = 256 << 20
#: What one batch of pictures may take.
BATCH_BYTES = 128 << 20
#: Batches that are decoded ahead.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Consecutive pictures. seen: (n, h, w, 3) uint8 RGB on the device."""

    first: int
    seen: torch.Tensor

    def __len__(self) -> int:
        return len(self.seen)


class Pictures:
    """The first `count` pictures of a clip, or all if there are fewer. waiting is called while there is none yet."""

    def __init__(self, clip: video.Clip, count: int, device: torch.device, waiting: Callable[[], None]) -> None:
        self._clip, self._device, self._waiting = clip, device, waiting
        self._count = 1 if clip.is_still else count
        self._kept: list[Picture] | None = None
        self.picture_bytes = clip.width * clip.height * 3
        self._keeps = self.picture_bytes * min(self._count, 2 * clip.frames_about) <= KEPT_BYTES
        self.whole = False  # known after the first reading

    def batches(self, size: int) -> Iterator[Batch]:
        """All of them from the start, `size` or fewer at once."""
        size = max(1, min(size, BATCH_BYTES // self.picture_bytes))
        if self._kept is not None:
            for first in range(0, len(self._kept), size):
                yield self._batch(first, self._kept[first : first + size])
            return
        kept: list[Picture] = []
        first = 0
        with Ahead(self._decoded(size), AHEAD, "decode", self._waiting) as coming:
            for pictures in coming:
                yield self._batch(first, pictures)
                first += len(pictures)
                kept += pictures if self._keeps else []
        self._kept = kept if self._keeps else None

    def _decoded(self, size: int) -> Iterator[list[Picture]]:
        """Reads one picture more than is wanted, to know whether there are more."""
        with closing(video.pictures(self._clip)) as coming:  # type: ignore[type-var]
            left = self._count
            while left > 0 and (pictures := list(itertools.islice(coming, min(size, left)))):
                left -= len(pictures)
                yield pictures
            self.whole = left > 0 or next(coming, None) is None

    def _batch(self, first: int, pictures: list[Picture]) -> Batch:
        stacked = torch.from_numpy(np.stack(pictures))
        if self._device.type == "cuda":
            stacked = stacked.pin_memory()
        return Batch(first, stacked.to(self._device, non_blocking=True))
