"""How a camera was held: the turn that makes a video's stored pictures upright."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """Swap rows and columns first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The upright width and height of a stored picture."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The upright picture; (height, width, channels), contiguous."""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        if self.mirror_x:
            picture = picture[:, ::-1]
        if self.mirror_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


def of(frame: Any) -> Turn:
    """The turn that the frame's display matrix asks for, to the nearest right angle."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot list side data of a kind that it does not know
        return _of_angle(frame.rotation)
    return Turn() if matrix is None else of_matrix(bytes(matrix))


def of_matrix(data: bytes) -> Turn:
    """The same for the matrix itself: nine 32-bit numbers in FFmpeg's order, x' = ax + cy, y' = bx + dy, y downwards."""
    a, b, _, c, d = struct.unpack("=5i", data[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(mirror_x=a < 0, mirror_y=d < 0)
    return Turn(transpose=True, mirror_x=c < 0, mirror_y=b < 0)


def _of_angle(degrees: int) -> Turn:
    """degrees: counter-clockwise."""
    return {
        0: Turn(),
        1: Turn(transpose=True, mirror_y=True),
        2: Turn(mirror_x=True, mirror_y=True),
        3: Turn(transpose=True, mirror_x=True),
    }[round(degrees / 90) % 4]
