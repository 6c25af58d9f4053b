"""Opens and decodes untrusted files: the only place where FFmpeg's input errors are translated into ours.

Only the formats below are opened, so that a playlist or script naming other files or hosts is never followed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError, InvalidDataError

from errors import InvalidInput
from media import header

log = logging.getLogger(__name__)

#: FFmpeg's names of the formats that may be opened.
FORMATS = (
    "mov,matroska,avi,flv,mpegts,mpeg,asf,ogg,gif,wav,w64,mp3,flac,aac,ac3,eac3,amr,aiff,au,caf,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)

#: The magic bytes of images, which are opened by content rather than name.
IMAGE_STARTS = {
    b"\xff\xd8\xff": "jpeg_pipe",
    b"\x89PNG\r\n": "png_pipe",
    b"BM": "bmp_pipe",
    b"II*\0": "tiff_pipe",
    b"MM\0*": "tiff_pipe",
}

#: FORMATS, worded for users.
ALLOWED = "video as MP4, MOV, MKV, WebM, AVI; audio as WAV, MP3, M4A, FLAC, OGG; images as JPEG, PNG, WebP, BMP, TIFF"

#: The most pixels a picture may have (8192 x 8192), and its longest side.
MAX_PIXELS = 8192 * 8192
MAX_SIDE_PX = 16384
#: The shortest side: the smallest that any model here can use.
MIN_SIDE_PX = 32

#: A title in an old encoding is no reason to reject a file; from version 19 this is PyAV's default.
TOLERANT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}

#: How many packets of a stream may be damaged: this number, and this fraction of all. Players skip them as well.
DAMAGED_PACKETS = 8
DAMAGED_SHARE = 0.02


def open_input(path: Path) -> Any:
    """The file as an `av` input container, to be used as a context manager. Raises InvalidInput if it is not supported
    media."""
    if path.stat().st_size == 0:
        raise InvalidInput("the file is empty (0 bytes)")
    said = header.size(path)
    if said is not None:
        check_size(*said)
    try:
        return av.open(
            f"file:{path}",
            format=_image_format(path),
            **TOLERANT,
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except (FFmpegError, ValueError) as error:
        if isinstance(error, OSError | MemoryError):
            raise
        raise InvalidInput(f"{look_at(path)}; allowed: {ALLOWED}") from error


def _image_format(path: Path) -> str | None:
    """The format of an image by its first bytes: by its name FFmpeg would take it for a numbered sequence."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp_pipe"
    return next((name for start, name in IMAGE_STARTS.items() if head.startswith(start)), None)


def look_at(path: Path) -> str:
    """What a non-media file seems to be, as the start of a sentence."""
    with path.open("rb") as file:
        head = file.read(4096)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text[:1024]:
        return "this is an HTML page, not media (does the link need a login, or point to a page about the file?)"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "the MP4 file is cut off or damaged: its index (moov atom) is missing or cannot be read"
    if text.startswith((b"{", b"[")):
        return "this is JSON text, not media"
    if text.startswith(b"<?xml"):
        return "this is an XML document, not media"
    if text.startswith(b"#extm3u"):
        return "this is a playlist, not media; send the file itself"
    if head.startswith((b"PK\x03\x04", b"%PDF", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")):
        return "this is a document or an archive, not media"
    if b"\0" not in head and _is_text(head):
        return "this is text, not media"
    return "the file is not in a known media format, or its start is damaged"


def _is_text(head: bytes) -> bool:
    try:
        head[: max(0, len(head) - 3)].decode()
    except UnicodeDecodeError:
        return False
    return True


def video_stream(container: Any) -> Any:
    """The first video stream, or None; album art does not count."""
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def audio_stream(container: Any) -> Any:
    """The first audio stream, or None."""
    return next(iter(container.streams.audio), None)


def check_decodable(stream: Any) -> None:
    """Raises InvalidInput if there is no decoder for the stream, or its picture is too large or too small."""
    codec = stream.codec_context
    if codec is None:
        raise InvalidInput(f"the {stream.type} is in a format that cannot be decoded here; allowed: {ALLOWED}")
    if stream.type == "video":
        check_size(codec.width, codec.height)


def check_size(width: int, height: int) -> None:
    """Raises InvalidInput if pictures of that size are not accepted."""
    if not width or not height:
        raise InvalidInput("the picture has no size: the file is cut off or damaged, or contains no frame (0 frames)")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        most = f"at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE_PX} pixels per side are allowed"
        raise InvalidInput(f"the picture is {width}x{height} pixels, {most}")
    if min(width, height) < MIN_SIDE_PX:
        raise InvalidInput(f"the picture is {width}x{height} pixels, at least {MIN_SIDE_PX}x{MIN_SIDE_PX} is required")


def seek(container: Any, stream: Any, to_s: float) -> bool:
    """Seek to the last decodable position at or before to_s (seconds of the stream's clock); returns whether that worked."""
    try:
        container.seek(round(to_s / stream.time_base), stream=stream)
    except FFmpegError as error:
        log.debug("cannot seek in %s: %s", container.format.name, error)
        return False
    return True


def decode(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's decoded frames from the container's current position, in presentation order.

    A few damaged packets are skipped with a warning, as players do. Raises InvalidInput if there are too many of them.
    """
    packets = damaged = 0
    for packet in _packets(container, stream):
        packets += 1
        try:
            decoded = packet.decode()
        except InvalidDataError as error:
            damaged += 1
            if damaged > max(DAMAGED_PACKETS, DAMAGED_SHARE * packets):
                raise InvalidInput(
                    f"the {stream.type} is damaged: {damaged} of its first {packets} packets are broken"
                ) from error
            continue
        except FFmpegError as error:
            if isinstance(error, OSError | MemoryError):
                raise
            raise InvalidInput(f"the {stream.type} cannot be decoded: {error.strerror}") from error
        yield from decoded
    if damaged:
        log.warning("skipped %d damaged packets of %d in the %s", damaged, packets, stream.type)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, followed by the empty one that flushes the decoder, even if the data ends early."""
    try:
        for packet in container.demux(stream):
            if packet.size or packet.dts is None:
                yield packet
    except (InvalidDataError, EOFError) as error:
        log.warning("the %s ends early: %s", stream.type, error)
        yield _flush(stream)


def _flush(stream: Any) -> Any:
    packet = av.Packet()
    packet.stream = stream
    return packet
