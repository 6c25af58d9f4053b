"""Reads an image's size from its header, so that no decoder is ever given a gigapixel image.

Decoders allocate memory according to the header, some before they check a limit. Nothing is decoded here; what cannot be parsed
is left for the decoder to reject.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: JPEG markers that begin a frame: the SOFs, without DHT, JPG and DAC which lie between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: The most JPEG segments, and TIFF entries, that are parsed.
_MOST = 1000
#: Brands of images in the boxes of an MP4.
_UNREAD = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")

Size = tuple[int, int]


def size(path: Path) -> Size | None:
    """Width and height in pixels from the header, before rotation; None: not an image, or its header is damaged."""
    with path.open("rb") as file:
        start = file.read(32)
        reader = next((reader for magic, reader in _READERS.items() if start.startswith(magic)), None)
        if reader is None:
            return None
        try:
            return reader(file, start)
        except struct.error:
            return None


def is_animated_webp(path: Path) -> bool:
    """Whether it is a WebP with several frames; our decoders return only the first."""
    with path.open("rb") as file:
        start = file.read(21)
    return start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and len(start) == 21 and bool(start[20] & 2)


def unread_kind(path: Path) -> str | None:
    """AVIF, HEIC or the like, by its own name; FFmpeg takes it for a video of one frame."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[8:].decode() if start[4:8] == b"ftyp" and start[8:] in _UNREAD else None


def _png(_: BinaryIO, start: bytes) -> Size:
    width, height = struct.unpack_from(">II", start, 16)
    return width, height


def _gif(_: BinaryIO, start: bytes) -> Size:
    width, height = struct.unpack_from("<HH", start, 6)
    return width, height


def _bmp(_: BinaryIO, start: bytes) -> Size:
    if struct.unpack_from("<I", start, 14)[0] == 12:  # OS/2's header
        width, height = struct.unpack_from("<HH", start, 18)
    else:
        width, height = struct.unpack_from("<ii", start, 18)
    return abs(width), abs(height)  # a negative height: the rows begin at the top


def _webp(_: BinaryIO, start: bytes) -> Size | None:
    kind = start[8:16]
    if kind == b"WEBPVP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if kind == b"WEBPVP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(file: BinaryIO, _: bytes) -> Size | None:
    file.seek(2)
    for _segment in range(_MOST):
        if file.read(1) != b"\xff":
            return None
        mark = file.read(1)
        while mark == b"\xff":  # fill bytes
            mark = file.read(1)
        length, _bits, height, width = struct.unpack(">HBHH", file.read(7))
        if mark[0] in _FRAMES:
            return width, height
        file.seek(length - 7, 1)
    return None


def _tiff(file: BinaryIO, start: bytes) -> Size | None:
    order = "<" if start[:2] == b"II" else ">"
    file.seek(struct.unpack_from(order + "I", start, 4)[0])
    (count,) = struct.unpack(order + "H", file.read(2))
    found: dict[int, int] = {}
    for _entry in range(min(count, _MOST)):
        entry = file.read(12)
        tag, kind = struct.unpack_from(order + "HH", entry)
        if tag in (256, 257):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), entry, 8)
    return (found[256], found[257]) if len(found) == 2 else None


_READERS: dict[bytes, Callable[[BinaryIO, bytes], Size | None]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"\xff\xd8\xff": _jpeg,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
