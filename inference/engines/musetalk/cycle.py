"""The output's length when the speech is longer or shorter than the person's video."""

from __future__ import annotations

from typing import Literal

#: loop: back and forth, both end frames shown twice, as in the published pipeline; the speech decides the length.
#: hold: the last frame stays until the speech ends. cut: the output ends with whichever ends first.
Loop = Literal["loop", "hold", "cut"]
#: cut: a video that is longer than the speech ends with it, as in the published pipeline. keep: the rest plays on, unchanged.
Tail = Literal["cut", "keep"]


def length(speech_frames: int, pictures: int, loop: Loop) -> int:
    """The number of spoken output frames, from the speech's length in frames and the video's number of frames."""
    return min(speech_frames, pictures) if loop == "cut" else speech_frames
