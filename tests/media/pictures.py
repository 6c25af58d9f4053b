"""Builds odd images, byte by byte where an encoder would refuse."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

#: 32x32 pixels of ink: no cyan, all magenta and yellow, no black; which is red. (No encoder here writes CMYK.)
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAbEhQXFBEbFxYXHhwbIChCKyglJShROj0wQmBVZWRfVV1baniZgWpxkHNbXYW1hpCeo6ut"
    "q2eAvMm6pseZqKuk/8AAFAgAIAAgBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAAG/8QAFBABAAAAAAAAAAAAAAAA"
    "AAAAAP/aAA4EQwBNAFkASwAAPwCmTKZUwAAAAAAAAAAAAAAAAAAAD//Z"
)


def encoded(picture: NDArray[Any], extension: str = ".png") -> bytes:
    """A picture (height, width[, channels]) in OpenCV's order of channels, as a file."""
    return cv2.imencode(extension, picture)[1].tobytes()


def bomb(width: int, height: int) -> bytes:
    """A whole PNG of black RGB pixels that is a thousand times smaller than what it unpacks to. height: in hundreds."""
    row_bytes = 1 + 3 * width
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    hundred_rows = packer.compress(bytes(100 * row_bytes)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (row_bytes * height % 65521) << 16 | 1  # Adler-32 of so many zeros
    data = b"\x78\xda" + hundred_rows * (height // 100) + b"\x03\x00" + struct.pack(">I", checksum)
    return png(width, height, data)


def png(width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of this header and these packed rows."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def lying_on_its_side(jpeg: bytes) -> bytes:
    """The JPEG with an EXIF note that the camera was turned: shown upright, its left edge is at the top."""
    note = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6) + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(note)) + note + jpeg[2:]


def turned(png: bytes, orientation: int, order: str = "<") -> bytes:
    """The PNG with an EXIF note of how its camera was held."""
    note = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return png[:33] + _chunk(b"eXIf", note) + png[33:]


def moving(path: Path, codec: str, pixels: str, frames: int = 4, size: tuple[int, int] = (80, 64)) -> Path:
    """An animation whose first frame is green and whose others are red."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for number in range(frames):
            picture = np.full((size[1], size[0], 3), (0, 255, 0) if number == 0 else (255, 0, 0), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
