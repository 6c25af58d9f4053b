"""The newest frame of a video in progress, as a small JPEG next to it, for anyone waiting for the rest.

It must never hold up the video: it is written rarely, by a thread that has time, and errors are ignored.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2

from media.still import Picture

#: Seconds between two previews, and a preview's longer side in pixels.
EVERY_S = 5.0
SIDE_PX = 360
QUALITY = 75


def beside(video: Path) -> Path:
    """Where the newest frame of this unfinished video is."""
    return video.with_suffix(".jpg")


def keep(picture: Picture, video: Path) -> None:
    """Replace the previous preview with this frame, (height, width, 3) uint8 RGB."""
    scale = min(1.0, SIDE_PX / max(picture.shape[:2]))
    new = video.with_suffix(".jpg.tmp")
    with contextlib.suppress(OSError, cv2.error):
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if done:
            new.write_bytes(data.tobytes())
            os.replace(new, beside(video))
