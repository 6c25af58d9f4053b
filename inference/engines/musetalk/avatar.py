"""Everything about a person's video that does not depend on the speech: box, latents and mask of every frame.

It depends only on the video and the parameters, so it is built once and cached (cache.py). It holds no pixels: 16 KB of latents
and a few KB of mask per frame.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.masks import Mask

#: The shape of one frame's latents.
LATENTS = (8, 32, 32)
#: Frames per block of latents while an avatar is built: 64 MiB, which goes back to the system when the block is freed.
BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """The first n frames of a video, or all of them.

    boxes    (n, 4) int32: left, top, right, bottom; all 0 where there is no face
    latents  (n, 8, 32, 32) float16
    places   (n, 4) int32: left, top, width and height of the mask; all 0 where nothing is generated
    masks    (bytes,) uint8: the masks' alphas, each compressed with zlib, concatenated
    ends     (n,) int64: where each packed mask ends
    """

    boxes: NDArray[np.int32]
    latents: NDArray[np.float16]
    places: NDArray[np.int32]
    masks: NDArray[np.uint8]
    ends: NDArray[np.int64]
    whole: bool  # the video has no more frames

    def __len__(self) -> int:
        return len(self.boxes)

    def has_face(self, number: int) -> bool:
        return bool(self.places[number, 2])

    def box(self, number: int) -> Box:
        return Box(*(int(edge) for edge in self.boxes[number]))

    def mask(self, number: int) -> Mask:
        """Only for a frame that has a face."""
        x, y, width, height = (int(value) for value in self.places[number])
        first = int(self.ends[number - 1]) if number else 0
        alpha = zlib.decompress(self.masks[first : int(self.ends[number])].tobytes())
        return Mask(x, y, np.frombuffer(alpha, np.uint8).reshape(height, width))

    @property
    def largest_mask(self) -> tuple[int, int]:
        """Height and width that every mask fits into."""
        return max(1, int(self.places[:, 3].max(initial=1))), max(1, int(self.places[:, 2].max(initial=1)))


class Maker:
    """Builds an avatar frame by frame. No part of it is ever held twice: an hour of video has 1.5 GB of latents."""

    def __init__(self) -> None:
        self._boxes: list[tuple[int, ...]] = []
        self._latents: list[NDArray[np.float16]] = []  # blocks of BLOCK frames; unwritten parts take no memory
        self._places: list[tuple[int, ...]] = []
        self._masks = bytearray()
        self._ends: list[int] = []

    def __len__(self) -> int:
        return len(self._boxes)

    def add(self, box: Box, latents: NDArray[np.float16], mask: Mask) -> None:
        height, width = mask.alpha.shape
        packed = zlib.compress(mask.alpha.tobytes(), 1)
        self._append((box.x1, box.y1, box.x2, box.y2), latents, (mask.x, mask.y, width, height), packed)

    def pass_by(self, box: Box | None = None) -> None:
        """Add a frame that stays unchanged; `box`: that of a face of which nothing would change."""
        self._append((box.x1, box.y1, box.x2, box.y2) if box else (0, 0, 0, 0), 0, (0, 0, 0, 0), b"")

    def _append(self, box: tuple[int, ...], latents: NDArray[np.float16] | int, place: tuple[int, ...], mask: bytes) -> None:
        if len(self) % BLOCK == 0:
            self._latents.append(np.empty((BLOCK, *LATENTS), np.float16))
        self._latents[-1][len(self) % BLOCK] = latents
        self._boxes.append(box)
        self._places.append(place)
        self._masks += mask
        self._ends.append(len(self._masks))

    def made(self, *, whole: bool) -> Avatar:
        """The finished avatar; the maker then no longer holds any latents."""
        return Avatar(
            boxes=np.array(self._boxes, np.int32).reshape(-1, 4),
            latents=self._joined(),
            places=np.array(self._places, np.int32).reshape(-1, 4),
            masks=np.frombuffer(self._masks, np.uint8),
            ends=np.array(self._ends, np.int64),
            whole=whole,
        )

    def _joined(self) -> NDArray[np.float16]:
        """All blocks joined; each is freed as soon as it is copied."""
        whole = np.empty((len(self), *LATENTS), np.float16)
        self._latents.reverse()
        for first in range(0, len(self), BLOCK):
            part = whole[first : first + BLOCK]
            part[:] = self._latents.pop()[: len(part)]
        return whole
