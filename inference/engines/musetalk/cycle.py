"""How long the output is, when the speech is longer or shorter than the person's video."""

from __future__ import annotations

from typing import Literal

#: loop: there and back again, both end pictures shown twice, as the published pipeline does; the speech decides the length.
#: hold: the last picture stays until the speech ends. cut: the output ends with whichever ends first.
Loop = Literal["loop", "hold", "cut"]


def length(speech_frames: int, pictures: int, loop: Loop) -> int:
    """How many frames the output has, from how long the speech is in frames and how many pictures the video has."""
    return min(speech_frames, pictures) if loop == "cut" else speech_frames
