"""Reads still images: the sender's JPEG or PNG as the picture that a person sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from media import turn

#: (height, width, 3) uint8 RGB.
Picture = NDArray[np.uint8]


def read(path: Path) -> Picture:
    """The image upright (its EXIF orientation applied), 8 bits a channel, transparency laid on white.

    Raises InvalidInput if it cannot be decoded. Its size must have been checked before, see `source.check_size`.
    """
    data = np.fromfile(path, dtype=np.uint8)
    start_of_scan, end_of_image = (data.tobytes().rfind(marker) for marker in (b"\xff\xda", b"\xff\xd9"))
    if data[:3].tobytes() == b"\xff\xd8\xff" and end_of_image < start_of_scan:
        raise InvalidInput("the JPEG is cut off: its end is missing")  # the decoder would paint the rest grey
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        whole, kinds, notes = cv2.imdecodeWithMetadata(data, flags=cv2.IMREAD_UNCHANGED)  # as stored, not turned upright
    except cv2.error as error:
        raise InvalidInput(f"the image cannot be decoded: {error.err}") from error
    if image is None or whole is None:
        raise InvalidInput("the image is damaged or cut off: it cannot be decoded")
    if whole.ndim == 3 and whole.shape[2] == 4:
        exif = next((bytes(note) for kind, note in zip(kinds, notes, strict=True) if kind == cv2.IMAGE_METADATA_EXIF), b"")
        alpha = turn.of_exif(exif).apply(whole[:, :, 3:])
        if alpha.shape[:2] == image.shape[:2]:
            return _on_white(np.asarray(image, dtype=np.uint8), alpha)
    return np.asarray(image, dtype=np.uint8)


def _on_white(image: Picture, alpha: NDArray[np.integer]) -> Picture:
    """alpha: (height, width, 1)."""
    share = alpha.astype(np.float32) / np.iinfo(alpha.dtype).max
    return np.asarray(np.rint(image * share + 255 * (1 - share)), dtype=np.uint8)
