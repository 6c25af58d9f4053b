"""S3FD pre- and post-processing: face detection in batches, on a downscaled copy of each picture.

The network's outputs are decoded as published (softmax, boxes relative to anchors of four cells, non-maximum suppression,
probability above 0.5), but without a loop over cells, and not at full resolution, where detecting a face takes longer than
generating one. In parity the picture is not downscaled. Tracking faces over time is in tracks.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engines import card
from inference.engines.musetalk import resize

#: Pictures are downscaled to at most this many pixels on the longer side.
SIDE_PX = 640

#: The network halves a picture five times; if nothing would be left of it, it is padded at the right and bottom.
MIN_PX = 32

#: The published means of blue, green and red, subtracted from red, green and blue, because the weights expect it that way.
MEAN = (104.0, 117.0, 123.0)
#: Cells of the first output are this wide, in pixels, doubling with each further output; an anchor is four cells wide.
FIRST_CELL, ANCHOR_CELLS = 4, 4
#: Scale factors of the network's outputs: for positions, and for the logarithm of sizes.
PLACE, LOG_SIZE = 0.1, 0.2

#: The score threshold for a face, and the overlap with a higher-scoring face above which it is the same one.
LIKELY, SAME = 0.5, 0.3

#: (k, 5) float64, highest score first: left, top, right, bottom in pixels of the picture, and the score.
Found = NDArray[np.float64]
Answers = Sequence[tuple[torch.Tensor, torch.Tensor]]


def detect(
    network: Callable[[torch.Tensor], Answers],
    pictures: torch.Tensor,
    side_px: int | None = SIDE_PX,
    dtype: torch.dtype = torch.float32,
) -> list[Found]:
    """The faces in each of (n, h, w, 3) uint8 RGB. side_px None: no downscaling."""
    height, width = pictures.shape[1:3]
    scale = 1.0 if side_px is None else min(1.0, side_px / max(height, width))
    if scale < 1:
        seen = resize.quick(pictures, max(1, round(height * scale)), max(1, round(width * scale)))
    else:
        seen = pictures.permute(0, 3, 1, 2).float()
    seen.sub_(resize.by_channel(MEAN, seen.shape[3], seen.device))
    stretch = np.array([width / seen.shape[3], height / seen.shape[2]] * 2 + [1.0])
    lacking = [max(0, MIN_PX - side) for side in seen.shape[2:]]
    if any(lacking):  # a strip, at least 20 times as long as wide
        seen = torch.nn.functional.pad(seen, (0, lacking[1], 0, lacking[0]))
    with torch.no_grad():
        answers = network(seen.to(dtype))
    return [found[distinct(found)] * stretch for found in candidates(answers)]


def candidates(answers: Answers) -> list[Found]:
    """Every box that scores above LIKELY, before non-maximum suppression.

    answers: logits (n, 2, h, w) for background and face, and positions (n, 4, h, w), for cells of 4, 8 … pixels.
    """
    scores, places, anchors = [], [], []
    for scale, (logits, place) in enumerate(answers):
        scores.append(logits.float().softmax(dim=1)[:, 1].flatten(1))
        places.append(place.float().flatten(2))
        anchors.append(_anchors(logits.shape[2], logits.shape[3], FIRST_CELL << scale))
    score, place, anchor = torch.cat(scores, 1), torch.cat(places, 2), card.sent(np.concatenate(anchors, 1), scores[0].device)
    picture, cell = torch.nonzero(score > LIKELY, as_tuple=True)
    rows = torch.cat([place[picture, :, cell].T, anchor[:, cell], score[picture, cell][None], picture[None]])
    numbers = rows.double().cpu().numpy()
    middle = numbers[4:6] + numbers[0:2] * PLACE * numbers[6]
    half = numbers[6] * np.exp(numbers[2:4] * LOG_SIZE) / 2
    boxes = np.concatenate([middle - half, middle + half, numbers[7:8]]).T
    return [boxes[numbers[8] == at] for at in range(len(score))]


def distinct(found: Found) -> NDArray[np.int64]:
    """Non-maximum suppression: the indices of (k, 5) to keep, highest score first; a box includes its last pixel."""
    left, top, right, bottom, score = found.T
    areas = (right - left + 1) * (bottom - top + 1)
    rest = np.argsort(-score, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= SAME]
    return np.array(kept, dtype=np.int64)


def surroundings(faces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where `landmarks` should look for a person with this face: head and shoulders, (n, 4) to (n, 4), or for a single face.

    Three faces wide and four high, like the pose network's input, with the face in the upper part.
    """
    side = (faces[..., 2:4] - faces[..., :2]).max(axis=-1)
    middle = (faces[..., 0] + faces[..., 2]) / 2
    above = faces[..., 1] - 0.75 * side
    return np.stack([middle - 1.5 * side, above, middle + 1.5 * side, above + 4 * side], axis=-1)


@functools.lru_cache(maxsize=32)
def _anchors(rows: int, columns: int, cell: int) -> NDArray[np.float32]:
    """(3, rows * columns): x and y of each cell's middle, and the anchor's side, in pixels."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    return np.stack([x * cell + cell / 2, y * cell + cell / 2, np.full(rows * columns, cell * ANCHOR_CELLS)]).astype(np.float32)
