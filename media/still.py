"""Reads still images: decodes the sender's JPEG or PNG into the picture that a person would see."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from media import source, turn

#: (height, width, 3) uint8 RGB.
Picture = NDArray[np.uint8]
#: How files begin that may be grey and transparent at once: PNG and TIFF.
MAY_BE_CLEAR = (b"\x89PNG", b"II*\0", b"MM\0*")


def read(path: Path) -> Picture:
    """The image upright (EXIF orientation applied), 8 bits per channel, transparency composited on white.

    Raises InvalidInput if it cannot be decoded. Check its size first, see `source.check_size`.
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
    clear = whole[:, :, 3:] if whole.ndim == 3 and whole.shape[2] == 4 else None
    if whole.ndim == 2 and data[:4].tobytes() in MAY_BE_CLEAR:
        clear = _alpha_of_grey(path)
    if clear is not None:
        exif = next((bytes(note) for kind, note in zip(kinds, notes, strict=True) if kind == cv2.IMAGE_METADATA_EXIF), b"")
        alpha = turn.of_exif(exif).apply(clear)
        if alpha.shape[:2] == image.shape[:2]:
            return _on_white(np.asarray(image, dtype=np.uint8), alpha)
    return np.asarray(image, dtype=np.uint8)


def _alpha_of_grey(path: Path) -> NDArray[np.uint8] | None:
    """(height, width, 1), as stored, if there is any: OpenCV leaves the transparency of grey pictures out."""
    try:
        with source.open_input(path) as container:
            frame = next(source.decode(container, source.video_stream(container)), None)
    except InvalidInput:  # a TIFF of a kind that only OpenCV knows
        return None
    if frame is None or not any(part.is_alpha for part in frame.format.components):
        return None
    return np.asarray(frame.reformat(format="rgba").to_ndarray()[:, :, 3:], dtype=np.uint8)


def _on_white(image: Picture, alpha: NDArray[np.integer]) -> Picture:
    """alpha: (height, width, 1)."""
    share = alpha.astype(np.float32) / np.iinfo(alpha.dtype).max
    return np.asarray(np.rint(image * share + 255 * (1 - share)), dtype=np.uint8)
