"""Streams source frames and speech into finished frames: decoding, the networks and the consumer each run in their own thread,
a few batches apart. Only these batches are in memory.

Only the masks' rectangles travel to the device and back; the rest of a frame is never touched.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from errors import Cancelled
from inference.engines import card
from inference.engines.musetalk import blend, sound
from inference.engines.musetalk.ahead import Ahead
from inference.engines.musetalk.avatar import Avatar
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.mouths import Speak
from inference.engines.musetalk.params import Params
from inference.engines.musetalk.room import Room
from inference.engines.musetalk.silence import Loudness
from media import video
from media.still import Picture

#: How many batches each step runs ahead of the next.
AHEAD = 2
#: The memory limit for the frames of one batch; large frames go in smaller batches.
GROUP_BYTES = 192 << 20


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to generate: `spoken` frames with new mouths, then the rest of the video if it `goes_on`.

    `frames`: how many in all; of a rest that was not looked at the length is an estimate.
    """

    clip: video.Clip
    avatar: Avatar
    speech: Path
    loudness: Loudness
    params: Params
    spoken: int
    frames: int

    @property
    def rate(self) -> Fraction:
        return self.clip.rate

    @property
    def goes_on(self) -> bool:
        """Whether the rest of the video is played, unchanged, after the speech."""
        return self.params.tail == "keep" and not (self.avatar.whole and len(self.avatar) <= self.spoken)


@dataclass
class Busy:
    """Seconds of work per step so far, and counters."""

    decode_s: float = 0.0
    networks_s: float = 0.0
    composite_s: float = 0.0
    without_face: int = 0  # spoken frames passed through unchanged
    frames: int = 0  # taken by the encoder
    first_s: float = 0.0  # when the first frame was ready, and when the last one was consumed, by time.monotonic
    ended: float = 0.0

    def steps(self) -> dict[str, float]:
        return {"decode": self.decode_s, "networks": self.networks_s, "composite": self.composite_s}


@dataclass
class Group:
    """Consecutive output frames. numbers: the indices of their source frames. with_face: which of them get a new mouth."""

    numbers: list[int]
    pictures: list[Picture]
    with_face: list[int]
    layout: blend.Layout | None = None
    parts: torch.Tensor | None = None  # the old pixels of the masks' rectangles, on the device
    patches: torch.Tensor | None = field(default=None)  # the new pixels, in host memory once `arrived`
    arrived: torch.cuda.Event | None = None

    def finish(self) -> None:
        """Write the new mouths into the frames."""
        if self.patches is None or self.layout is None:
            return
        if self.arrived is not None:
            self.arrived.synchronize()
        patches = self.patches.numpy()
        for at, patch, mask in zip(self.with_face, patches, self.layout.masks, strict=True):
            blend.put_in(self.pictures[at], patch, mask)


def frames(
    job: Job, models: Models, speak: Speak, room: Room, busy: Busy, waiting: Callable[[], None]
) -> Generator[Picture, None, None]:
    """The output frames in order. waiting is called while none is ready; an exception from it stops everything."""
    stop = threading.Event()
    size = _group_size(room, job.clip)
    with (
        Ahead(_decoded(job, size, models.device, busy, stop), AHEAD, "decode") as decoded,
        Ahead(_spoken(job, size, decoded, models, speak, room, busy), AHEAD, "networks", waiting) as spoken,
    ):
        try:
            for group in spoken:
                began = time.monotonic()
                group.finish()
                busy.composite_s += time.monotonic() - began
                busy.first_s = busy.first_s or time.monotonic()
                yield from group.pictures
        finally:
            stop.set()


def _group_size(room: Room, clip: video.Clip) -> int:
    """The networks' batch size, halved until the frames are within the memory limit; CUDA graphs exist for halves, see
    mouths."""
    size = room.size
    while size > 1 and size * clip.width * clip.height * 3 > GROUP_BYTES:
        size //= 2
    return size


def _decoded(job: Job, size: int, device: torch.device, busy: Busy, stop: threading.Event) -> Iterator[Group]:
    """Groups of `size` frames, with the parts that the device needs."""
    left = job.spoken
    with closing(_sources(job, stop)) as coming:
        while True:
            began = time.monotonic()
            some = list(itertools.islice(coming, size))
            if not some:
                return
            numbers, pictures = [number for number, _ in some], [picture for _, picture in some]
            spoken = numbers[:left]
            left -= len(spoken)
            group = Group(numbers, pictures, [at for at, number in enumerate(spoken) if job.avatar.has_face(number)])
            busy.without_face += len(spoken) - len(group.with_face)
            if group.with_face:
                chosen = [numbers[at] for at in group.with_face]
                places = [job.avatar.box(number) for number in chosen], [job.avatar.mask(number) for number in chosen]
                group.layout = blend.layout(*places, device, least=job.avatar.largest_mask)
                group.parts = card.sent(blend.cut_out([pictures[at] for at in group.with_face], group.layout), device)
            busy.decode_s += time.monotonic() - began
            yield group


def _sources(job: Job, stop: threading.Event) -> Generator[tuple[int, Picture], None, None]:
    """The index and source frame of each output frame; the frame may be written to."""

    def while_decoding() -> None:
        if stop.is_set():
            raise Cancelled("the frames are no longer needed")

    coming: Iterator[tuple[int, Picture]]
    if job.goes_on:
        coming = enumerate(video.pictures(job.clip))
    elif job.params.loop == "loop" or job.clip.is_still:
        coming = video.there_and_back(job.clip, job.frames, while_decoding)
    else:
        coming = _held(enumerate(video.pictures(job.clip)))
    for number, picture in itertools.islice(coming, None if job.goes_on else job.frames):
        while_decoding()
        repeated = job.clip.is_still or (job.params.loop == "hold" and number == len(job.avatar) - 1)
        yield min(number, len(job.avatar) - 1), picture.copy() if repeated else picture


def _held(coming: Iterator[tuple[int, Picture]]) -> Iterator[tuple[int, Picture]]:
    """The frames, then the last one forever."""
    last = None
    for last in coming:
        yield last
    if last is not None:
        yield from itertools.repeat(last)


def _spoken(job: Job, size: int, groups: Ahead[Group], models: Models, speak: Speak, room: Room, busy: Busy) -> Iterator[Group]:
    """The groups, with their new mouths being copied back from the device."""
    with torch.inference_mode():
        heard = sound.windows(job.speech, models, job.params, job.loudness, job.spoken, job.rate, size)
        for group in groups:
            began = time.monotonic()
            windows = next(heard, None)
            if group.layout is not None and group.parts is not None and windows is not None:
                made = _mouths(job, group, windows, models, speak, room)
                _fetch(group, blend.patches(group.parts, made, group.layout))
            busy.networks_s += time.monotonic() - began
            yield group


def _mouths(job: Job, group: Group, windows: torch.Tensor, models: Models, speak: Speak, room: Room) -> torch.Tensor:
    """(n, 256, 256, 3) uint8 on the device, for the frames that get a new mouth."""
    if len(group.with_face) < len(group.numbers):
        windows = windows[card.sent(np.array(group.with_face), windows.device)]
    latents = card.sent(job.avatar.latents[[group.numbers[at] for at in group.with_face]], models.device)
    parts = room.parts(len(latents), lambda part: speak(latents[part], windows[part]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _fetch(group: Group, patches: torch.Tensor) -> None:
    """Start the copy back to the host; `Group.finish` waits for it."""
    if patches.device.type != "cuda":
        group.patches = patches
        return
    group.patches = torch.empty(patches.shape, dtype=patches.dtype, pin_memory=True)
    group.patches.copy_(patches, non_blocking=True)
    group.arrived = torch.cuda.Event(blocking=True)
    group.arrived.record()
