"""Where the chosen person's face is in every frame of a video: detection, tracking, landmarks, smoothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from inference.engines import card
from inference.engines.musetalk import boxes, faces, landmarks, masks, tracks
from inference.engines.musetalk.boxes import Box, Edges
from inference.engines.musetalk.faces import Found
from inference.engines.musetalk.models import Models
from inference.engines.musetalk.params import Params
from inference.engines.musetalk.pictures import Batch, Pictures
from inference.engines.musetalk.room import Room

#: A box from landmarks must overlap the detected face by this (intersection over union), else the detector's box is used.
BELIEVABLE = 0.15
#: The kept part of a frame is this many times what its landmark box needs.
ROOM_TO_MOVE = 1.25

#: (68, 2) float64 in the picture's pixels.
Points = NDArray[np.float64]


@dataclass
class Seen:
    """What was found in the frames so far. points: only of frames where the face is unambiguous."""

    found: list[Found] = field(default_factory=list)
    points: dict[int, Points] = field(default_factory=dict)


def look(
    pictures: Pictures, models: Models, params: Params, rate: Fraction, room: Room, report: Callable[[int], None]
) -> list[Box | None]:
    """The box of each frame, clipped to it, including the margin below the chin; None where nothing is generated.

    report: called with the number of frames processed so far. Raises InvalidInput if no frame has a face, unless it may.
    """
    seen = Seen()
    height = width = 0
    with closing(pictures.batches(room.size)) as batches:
        for batch in batches:
            height, width = batch.seen.shape[1:3]
            (_look_as_published if params.parity else _look)(batch, models, seen, room)
            _keep(pictures, batch, seen, params)
            report(len(seen.found))
    if not any(len(found) for found in seen.found):
        if params.no_face == "pass":
            return [None] * len(seen.found)
        raise _no_face(len(seen.found), rate, params.parity)
    if params.parity:
        found = _as_published(seen, params, width, height)
    else:
        found = boxes.whole(_steadied(seen, pictures, models, params, rate, room, (width, height)), width, height)
    return [box and boxes.with_margin(box, params.extra_margin, height) for box in found]


def _look(batch: Batch, models: Models, seen: Seen, room: Room) -> None:
    """Faces in every frame, and the landmarks of those that are alone."""
    parts = room.parts(len(batch), lambda part: faces.detect(models.detector, batch.seen[part], dtype=models.looking_dtype))
    found = [one for part in parts for one in part]
    alone = [at for at, one in enumerate(found) if len(one) == 1]
    _measure(batch, alone, [found[at][0] for at in alone], models, seen, room)
    seen.found += found


def _measure(batch: Batch, wanted: list[int], around: list[Found], models: Models, seen: Seen, room: Room) -> None:
    """The landmarks of one face in each of these frames of a batch."""
    if not wanted:
        return
    chosen = batch.seen if len(wanted) == len(batch) else batch.seen[card.sent(np.array(wanted), batch.seen.device)]
    regions = faces.surroundings(np.stack(around)[:, :4])
    parts = room.parts(
        len(wanted),
        lambda part: landmarks.locate(models.pose, chosen[part], regions[part], models.looking_dtype),
    )
    for at, points in zip(wanted, np.concatenate(parts), strict=True):
        seen.points[batch.first + at] = _believed(points[None])[0]


def _keep(pictures: Pictures, batch: Batch, seen: Seen, params: Params) -> None:
    """Keep what encoder and parser will need, as far as the landmarks already tell; smoothing moves a box slightly."""
    for number, picture in enumerate(batch.pictures, batch.first):
        points = seen.points.get(number)
        box = None if points is None or np.isnan(points).any() else boxes.of_points(points, params.bbox_shift)
        if box is not None:
            lower = boxes.with_margin(box, params.extra_margin, picture.shape[0])
            pictures.keep(number, picture, masks.square(lower, masks.EXPAND * ROOM_TO_MOVE))


def _believed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 68, 2) from (n, 133, 3), NaN where any of them was not found."""
    face = landmarks.face68(points).copy()
    face[(points[:, landmarks.FACE, 2] <= 0).any(axis=1)] = np.nan
    return face


def _steadied(
    seen: Seen, pictures: Pictures, models: Models, params: Params, rate: Fraction, room: Room, size: tuple[int, int]
) -> Edges:
    """The chosen face's edges in every frame, smoothed over time."""
    chosen = tracks.choose(tracks.follow(seen.found, rate), params.face, len(seen.found), *size)
    there = np.asarray(~np.isnan(chosen).any(axis=1))
    if any(there[number] and number not in seen.points for number in range(len(there))):
        with closing(pictures.batches(room.size)) as batches:  # several faces: now we know whose landmarks are needed
            for batch in batches:
                numbers = range(batch.first, batch.first + len(batch))
                wanted = [at for at, number in enumerate(numbers) if there[number] and number not in seen.points]
                _measure(batch, wanted, [chosen[batch.first + at] for at in wanted], models, seen, room)
                _keep(pictures, batch, seen, params)
    points = np.full((len(chosen), 68, 2), np.nan)
    for number in np.flatnonzero(there):
        points[number] = seen.points[int(number)]
    edges = boxes.edges_of_points(points, params.bbox_shift)
    with np.errstate(invalid="ignore"):
        doubtful = there & (np.isnan(edges).any(axis=1) | (boxes.overlap(edges, chosen) < BELIEVABLE))
    edges[doubtful] = chosen[doubtful]
    return boxes.steady(edges, rate) if params.smooth else edges


def _look_as_published(batch: Batch, models: Models, seen: Seen, room: Room) -> None:
    """The landmarks on full frames, of whichever person the pose network finds."""
    parts = room.parts(len(batch), lambda part: faces.detect(models.detector, batch.seen[part], None, models.looking_dtype))
    points = room.parts(len(batch), lambda part: landmarks.locate(models.pose, batch.seen[part], None, models.looking_dtype))
    for face in landmarks.face68(np.concatenate(points)):
        seen.points[len(seen.points)] = face
    seen.found += [one for part in parts for one in part]


def _as_published(seen: Seen, params: Params, width: int, height: int) -> list[Box | None]:
    """A box outside the frame counts as no face; the published pipeline stops there."""
    found = [
        boxes.of_points(seen.points[number], params.bbox_shift, tuple(found[0])) if len(found) else None
        for number, found in enumerate(seen.found)
    ]
    inside = [box and box.cut(width, height) for box in found]
    return [box if part and min(part.width, part.height) >= 1 else None for box, part in zip(found, inside, strict=True)]


def _no_face(looked_at: int, rate: Fraction, parity: bool) -> InvalidInput:
    smallest = "" if parity else f" and be at least 1/{faces.SIDE_PX // 16} of the longer side of the frame wide"
    return InvalidInput(
        f"no face found in the video: searched all {looked_at} frames from 0.00 s to "
        f"{float((looked_at - 1) / rate):.2f} s; a face must be seen from the front{smallest}",
        stage="preprocessing",
    )
