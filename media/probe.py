"""Finds out what a file is by decoding its beginning and its end, before the file counts as fetched.

`python -m media.probe --as video|audio|image [--max-duration S] FILE` prints one JSON object and always ends with code 0:
`{"ok": true, "kind": …}` or `{"ok": false, "error": …, "details": {…}}`. Running as a separate process, it
limits a hostile file's memory and time and isolates it from ours; if the process ends any other way, the file killed it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from errors import InvalidInput
from media import boxes, confine, header, source, turn

log = logging.getLogger(__name__)

#: What the process may use: address space in bytes, and seconds of CPU.
MEMORY_BYTES = 4 << 30
CPU_S = 60

#: How much earlier than declared a stream may end before the file counts as cut off: seconds, and fraction of the duration.
SHORT_S = 1.0
SHORT_SHARE = 0.1

#: Formats whose header can be trusted: others estimate the duration from the bit rate, or shorten it with an edit list.
KNOW_THEIR_LENGTH = ("avi", "wav", "flac")

#: Chooses a stream of an open container.
Pick = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a file is. kind: "video", "image" or "audio"; sizes are those of the upright picture."""

    kind: str
    container: str
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    rate: Fraction | None = None  # average frames per second
    frames: int | None = None
    has_audio: bool = False
    sample_rate_hz: int | None = None
    channels: int | None = None
    audio_duration_s: float | None = None


def probe(path: Path) -> Probe:
    """What the file is; decodes its first and last frames and samples. Raises InvalidInput if it is not complete media."""
    with source.open_input(path) as container:
        name = container.format.name
        boxes.check_whole(path, name)
        found = Probe(kind="audio", container=name.split(",")[0])
        pictures, sound = source.video_stream(container), source.audio_stream(container)
        if pictures is not None and not (name.endswith("_pipe") and header.size(path)):  # an image's size has been checked
            source.check_decodable(pictures)
    if pictures is None and sound is None:
        raise InvalidInput(f"this {found.container} file has neither video nor audio (0 frames)")
    if pictures is None:
        return _with_sound(found, path)
    if name.endswith("_pipe"):
        return _image(found, path)
    found = _with_pictures(found, path)
    return found if sound is None else _with_own_sound(found, path)


def check(found: Probe, wanted: str, max_duration_s: float | None) -> None:
    """Raises InvalidInput if the file is not what the job needs: a "video" may be an image, "audio" may come from a video."""
    if wanted == "video" and found.kind == "audio":
        raise InvalidInput(f"this is audio only ({found.container}), not a video")
    if wanted == "image" and found.kind != "image":
        raise InvalidInput(f"this is {_kind(found)}, not an image")
    if wanted == "audio" and not found.has_audio:
        raise InvalidInput(f"this is {_kind(found)} without sound, not speech")
    length_s = found.audio_duration_s if wanted == "audio" else found.duration_s
    if max_duration_s is not None and length_s is not None and length_s > max_duration_s:
        raise InvalidInput(f"{wanted}: {length_s:.1f} s long, at most {max_duration_s:g} s is allowed", duration_s=length_s)


def _kind(found: Probe) -> str:
    return {"video": "a video", "image": "an image", "audio": "sound"}[found.kind]


def _image(found: Probe, path: Path) -> Probe:
    from media import still  # OpenCV is slow to load, and most files are not images

    height, width = still.read(path).shape[:2]
    return replace(found, kind="image", width=width, height=height, frames=1)


def _with_pictures(found: Probe, path: Path) -> Probe:
    with source.open_input(path) as container:
        stream = source.video_stream(container)
        stream.codec_context.thread_count = 1
        first = next(source.decode(container, stream), None)
        if first is None:
            raise InvalidInput("the video has no decodable frame (0 frames)")
        source.check_size(first.width, first.height)
        width, height = turn.of(first).size(first.width, first.height)
        rate = stream.average_rate or stream.guessed_rate
        frames = stream.frames or None
        promised_s = _promised_s(container, stream)
    length_s = _length(path, source.video_stream, first, promised_s, found.container)
    length_s = max(length_s, float(1 / rate) if rate else 0.0)
    return replace(
        found,
        kind="video",
        width=width,
        height=height,
        rate=Fraction(rate) if rate else None,
        frames=frames,
        duration_s=round(length_s, 6),
    )


def _with_sound(found: Probe, path: Path) -> Probe:
    with source.open_input(path) as container:
        stream = source.audio_stream(container)
        source.check_decodable(stream)
        first = next(source.decode(container, stream), None)
        if first is None:
            raise InvalidInput("the audio has no decodable samples")
        promised_s = _promised_s(container, stream)
    length_s = round(_length(path, source.audio_stream, first, promised_s, found.container), 6)
    return replace(
        found,
        has_audio=True,
        duration_s=found.duration_s or length_s,
        audio_duration_s=length_s,
        sample_rate_hz=first.sample_rate,
        channels=first.layout.nb_channels,
    )


def _with_own_sound(found: Probe, path: Path) -> Probe:
    """A video's own audio is rarely needed: if it is damaged, the video counts as silent, not as invalid."""
    try:
        return _with_sound(found, path)
    except InvalidInput as error:
        log.warning("ignored the video's own audio: %s", error.message)
        return found


def _length(path: Path, pick: Pick, first: Any, promised_s: float | None, container_name: str) -> float:
    """Decode the stream's end; its length in seconds. Raises InvalidInput if the data ends before the declared duration."""
    began = first.time or 0.0
    ends_s = _last_time(path, pick, began + promised_s - 2.0) if promised_s and promised_s > 4.0 else None
    if ends_s is None:
        ends_s = _last_time(path, pick, None)
    if ends_s is None:
        raise InvalidInput("the file cannot be decoded to its end: it is cut off or damaged")
    length_s = ends_s - began
    if promised_s and container_name in KNOW_THEIR_LENGTH and promised_s - length_s > max(SHORT_S, SHORT_SHARE * promised_s):
        raise InvalidInput(f"the file is cut off: its data ends after {length_s:.1f} s of {promised_s:.1f} s")
    return length_s


def _promised_s(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000


def _last_time(path: Path, pick: Pick, from_s: float | None) -> float | None:
    """When the last frame ends, by the stream's clock, found by decoding from about from_s; None: no frame found."""
    ends_s = None
    with source.open_input(path) as container:
        stream = pick(container)
        stream.codec_context.thread_count = 1
        if from_s is not None and not source.seek(container, stream, from_s):
            return None
        for frame in source.decode(container, stream):
            if frame.time is not None:
                ends_s = max(ends_s or 0.0, frame.time + _length_s(frame))
    return ends_s


def _length_s(frame: Any) -> float:
    if hasattr(frame, "samples"):
        return float(frame.samples) / float(frame.sample_rate)
    return float(frame.duration * frame.time_base) if frame.duration else 0.0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m media.probe", description="Describe a media file as one JSON object.")
    parser.add_argument("--as", dest="wanted", choices=("video", "audio", "image"), required=True, help="the kind required")
    parser.add_argument("--max-duration", type=float, metavar="S", help="the longest duration allowed, in seconds")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    confine.this_process(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)
    print(json.dumps(answer(options.file, options.wanted, options.max_duration)))


def answer(path: Path, wanted: str, max_duration_s: float | None) -> dict[str, Any]:
    """What the command prints."""
    try:
        found = probe(path)
        if wanted == "image" and found.container == "gif":  # its first frame, which is also what older workers took
            found = _image(Probe(kind="image", container="gif"), path)
        if wanted == "image" and (unread := header.unread_kind(path)):
            raise InvalidInput(f"this is an image of a kind that is not read ({unread}); send it as JPEG, PNG or WebP")
        if wanted == "video" and header.is_animated_webp(path):
            raise InvalidInput("this is an animated WebP, which cannot be read as a video; send it as GIF or MP4")
        check(found, wanted, max_duration_s)
    except InvalidInput as error:
        return {"ok": False, "error": error.message, "details": error.details}
    except MemoryError:
        return {"ok": False, "error": "decoding the file needs more memory than is allowed", "details": {}}
    except OSError as error:
        return {"ok": False, "error": f"the file cannot be read: {error.strerror}", "details": {}}
    return {"ok": True, **asdict(found), "rate": None if found.rate is None else str(found.rate)}


if __name__ == "__main__":
    main(sys.argv[1:])
