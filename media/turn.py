"""Camera orientation: the rotation that makes stored pictures upright."""

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

    def apply(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The upright picture; (height, width, channels), contiguous."""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        if self.mirror_x:
            picture = picture[:, ::-1]
        if self.mirror_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


#: EXIF's orientation tag, and the turn for each of its values.
ORIENTATION = 0x0112
EXIF = {
    1: Turn(),
    2: Turn(mirror_x=True),
    3: Turn(mirror_x=True, mirror_y=True),
    4: Turn(mirror_y=True),
    5: Turn(transpose=True),
    6: Turn(transpose=True, mirror_x=True),
    7: Turn(transpose=True, mirror_x=True, mirror_y=True),
    8: Turn(transpose=True, mirror_y=True),
}


def of(frame: Any) -> Turn:
    """The turn given by the frame's display matrix, to the nearest right angle."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV fails on side data of an unknown kind
        return _of_angle(frame.rotation)
    return Turn() if matrix is None else of_matrix(bytes(matrix))


def of_matrix(data: bytes) -> Turn:
    """The same for the matrix itself: nine 32-bit numbers in FFmpeg's order, x' = ax + cy, y' = bx + dy, y downwards."""
    a, b, _, c, d = struct.unpack("=5i", data[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(mirror_x=a < 0, mirror_y=d < 0)
    return Turn(transpose=True, mirror_x=c < 0, mirror_y=b < 0)


def of_exif(note: bytes) -> Turn:
    """The same for an image's EXIF block (a TIFF header and its first directory); no turn if it has no orientation."""
    order = {b"II": "<", b"MM": ">"}.get(note[:2])
    if order is None:
        return Turn()
    try:
        (first,) = struct.unpack_from(order + "I", note, 4)
        (count,) = struct.unpack_from(order + "H", note, first)
        entries = (struct.unpack_from(order + "HHIH", note, first + 2 + 12 * number) for number in range(count))
        said = next((value for tag, _, _, value in entries if tag == ORIENTATION), 1)
    except struct.error:
        return Turn()
    return EXIF.get(said, Turn())


def _of_angle(degrees: int) -> Turn:
    """degrees: counter-clockwise."""
    return {
        0: Turn(),
        1: Turn(transpose=True, mirror_y=True),
        2: Turn(mirror_x=True, mirror_y=True),
        3: Turn(transpose=True, mirror_x=True),
    }[round(degrees / 90) % 4]
