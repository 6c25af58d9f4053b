"""What is known of one person's video before anybody speaks: for every picture the box, the latents and the mask.

It depends on the video and on the parameters only, not on the speech, so it is made once and kept (cache.py). No picture is
kept in it: 16 KB of latents and a few KB of mask for each.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.masks import Mask

#: The shape of one picture's latents.
LATENTS = (8, 32, 32)
#: Pictures whose latents are kept together while an avatar is made: 64 MiB, which the system takes back when they are let go.
BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """The first n pictures of a video, or all of them.

    boxes    (n, 4) int32: left, top, right, bottom; all 0 where there is no face
    latents  (n, 8, 32, 32) float16
    places   (n, 4) int32: left, top, width and height of the mask; all 0 where nothing is generated
    masks    (bytes,) uint8: the masks' alphas one after the other, packed with zlib
    ends     (n,) int64: where each packed mask ends
    """

    boxes: NDArray[np.int32]
    latents: NDArray[np.float16]
    places: NDArray[np.int32]
    masks: NDArray[np.uint8]
    ends: NDArray[np.int64]
    whole: bool  # the video has no more pictures

    def __len__(self) -> int:
        return len(self.boxes)

    def has_face(self, number: int) -> bool:
        return bool(self.places[number, 2])

    def box(self, number: int) -> Box:
        return Box(*(int(edge) for edge in self.boxes[number]))

    def mask(self, number: int) -> Mask:
        """Of a picture that has a face."""
        x, y, width, height = (int(value) for value in self.places[number])
        first = int(self.ends[number - 1]) if number else 0
        alpha = zlib.decompress(self.masks[first : int(self.ends[number])].tobytes())
        return Mask(x, y, np.frombuffer(alpha, np.uint8).reshape(height, width))

    @property
    def largest_mask(self) -> tuple[int, int]:
        """Height and width that every mask fits into."""
        return max(1, int(self.places[:, 3].max(initial=1))), max(1, int(self.places[:, 2].max(initial=1)))


class Maker:
    """Collects an avatar picture by picture. Nothing of it is ever there twice: an hour of video has 1.5 GB of latents."""

    def __init__(self) -> None:
        self._boxes: list[tuple[int, ...]] = []
        self._latents: list[NDArray[np.float16]] = []  # blocks of BLOCK pictures; what is not written yet takes no memory
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
        """A picture that stays as it is, with the box of a face of which nothing would change."""
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
        """What was collected; the maker is empty of latents then."""
        return Avatar(
            boxes=np.array(self._boxes, np.int32).reshape(-1, 4),
            latents=self._joined(),
            places=np.array(self._places, np.int32).reshape(-1, 4),
            masks=np.frombuffer(self._masks, np.uint8),
            ends=np.array(self._ends, np.int64),
            whole=whole,
        )

    def _joined(self) -> NDArray[np.float16]:
        """All blocks as one; each is let go as soon as it is copied."""
        whole = np.empty((len(self), *LATENTS), np.float16)
        self._latents.reverse()
        for first in range(0, len(self), BLOCK):
            part = whole[first : first + BLOCK]
            part[:] = self._latents.pop()[: len(part)]
        return whole
