"""Tracks faces over time, and chooses the person whose mouth is moved.

Detections of one person are linked from frame to frame by predicting the person's movement. Two people who cross are a single
detection for a moment: neither track gets it, both continue as predicted, and are found again on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from errors import InvalidInput
from inference.engines.musetalk.boxes import Edges, overlap
from inference.engines.musetalk.faces import Found
from inference.engines.musetalk.params import Face

#: The overlap (intersection over union) that links a face to a track, and that makes two tracks compete for one face.
JOINED, CONTENDING = 0.1, 0.25
#: Without overlap (low frame rate, fast heads): how far the centres may be apart, in sides of the face.
NEAR_SIDES = 1.0
#: In seconds: a face gone for longer than LOST_S is someone new; nobody is hidden behind another for longer than HIDDEN_S.
LOST_S, HIDDEN_S = 1.0, 0.6
#: The fit of a face to tracks of which one hides the other; worse than any real fit.
HIDING = -1e6
#: The weight of the newest movement in the running average of a track's speed.
FRESH = 0.3
#: A track with fewer frames does not compete, and does not count as the chosen person's return.
SURE = 3


@dataclass
class Track:
    """One person's face. boxes[i] is its box in frame frames[i]; (4,) each."""

    frames: list[int] = field(default_factory=list)
    boxes: list[Edges] = field(default_factory=list)
    speed: Edges = field(default_factory=lambda: np.zeros(4))  # pixels per frame

    def expected(self, frame: int) -> Edges:
        return self.boxes[-1] + self.speed * (frame - self.frames[-1])

    def add(self, frame: int, box: Edges) -> None:
        if self.frames:
            moved = (box - self.boxes[-1]) / (frame - self.frames[-1])
            moved = np.tile((moved[:2] + moved[2:]) / 2, 2)  # a predicted face keeps its size
            self.speed = moved if len(self.frames) == 1 else self.speed * (1 - FRESH) + moved * FRESH
        self.frames.append(frame)
        self.boxes.append(box)

    @property
    def area(self) -> float:
        """The sum over all its frames."""
        return float(sum(np.prod(box[2:] - box[:2]) for box in self.boxes))


def follow(found: Sequence[Found], rate: Fraction) -> list[Track]:
    """The tracks through the faces of every frame of a clip, in the order in which they begin. rate: frames per second."""
    tracks: list[Track] = []
    lost, hidden = max(1, round(LOST_S * rate)), max(1, round(HIDDEN_S * rate))
    going: list[Track] = []
    for frame, faces in enumerate(found):
        boxes = faces[:, :4]
        going = [track for track in going if frame - track.frames[-1] <= lost]
        fits = _fits(going, boxes, frame)
        if len(going) > 1:
            _hide(fits, going, frame, hidden)
        joined = _joined(fits)
        for at, track in joined.items():
            going[track].add(frame, boxes[at])
        taken = (fits == HIDING).any(axis=0)
        new = [Track([frame], [box]) for at, box in enumerate(boxes) if at not in joined and not taken[at]]
        tracks += new
        going += new
    return tracks


def choose(tracks: Sequence[Track], face: Face, frames: int, width: int, height: int) -> Edges:
    """The chosen person's face in each of `frames` frames of this size, (frames, 4), NaN where it is absent.

    A chosen face that disappeared may return as another track: one that never shares a frame with it.
    Raises InvalidInput if there is no face, or too few for `face`.
    """
    if not tracks:
        raise InvalidInput("no face was found in the video; it needs at least one frame with a face seen from the front")
    chosen = [_chosen(tracks, face, width, height)]
    for track in sorted(tracks, key=lambda one: -one.area):
        if len(track.frames) >= SURE and all(set(one.frames).isdisjoint(track.frames) for one in chosen):
            chosen.append(track)
    edges = np.full((frames, 4), np.nan)
    for track in chosen:
        edges[track.frames] = track.boxes
    return edges


def _chosen(tracks: Sequence[Track], face: Face, width: int, height: int) -> Track:
    if face == "largest":
        return max(tracks, key=lambda track: track.area)
    first = min(track.frames[0] for track in tracks)
    there = [track for track in tracks if track.frames[0] == first]
    there.sort(key=lambda track: float(track.boxes[0][0] + track.boxes[0][2]))
    if isinstance(face, int):
        if face >= len(there):
            allowed = f"0 to {len(there) - 1}" if len(there) > 1 else "0"
            why = f"the first frame with a face has {len(there)}"
            raise InvalidInput(f"params.face: got {face}, must be {allowed}: {why}", stage="validation")
        return there[face]
    point = np.array([face[0] * width, face[1] * height])
    return min(there, key=lambda track: _away(track.boxes[0], point))


def _away(box: Edges, point: NDArray[np.float64]) -> tuple[bool, float]:
    """Whether a point is outside a box, and its distance from the box's centre."""
    inside = bool((box[:2] <= point).all() and (point <= box[2:]).all())
    return not inside, float(np.hypot(*((box[:2] + box[2:]) / 2 - point)))


def _fits(going: Sequence[Track], boxes: Edges, frame: int) -> NDArray[np.float64]:
    """(tracks, faces): how well they fit: 0 to 1 if they overlap, below 0 if they are only near, else -inf."""
    fits = np.full((len(going), len(boxes)), -np.inf)
    for row, track in zip(fits, going, strict=True):
        expected = track.expected(frame)
        shared = overlap(expected[None], boxes)
        apart = np.hypot(*((boxes[:, :2] + boxes[:, 2:] - expected[:2] - expected[2:]) / 2).T)
        side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).clip(1))
        near = apart < NEAR_SIDES * side
        row[near] = -(apart / side)[near]
        row[shared >= JOINED] = shared[shared >= JOINED]
    return fits


def _hide(fits: NDArray[np.float64], going: Sequence[Track], frame: int, hidden: int) -> None:
    """Removes from `fits` the faces that more tracks compete for than there are faces, since who is in front is unknown. For
    the competing tracks such a face is HIDING: it belongs to none of them and starts no new track."""
    sure = np.array([len(track.frames) >= SURE and frame - track.frames[-1] <= hidden for track in going])
    close = (fits >= CONTENDING) & sure[:, None]
    for at in range(fits.shape[1]):
        contending = close[:, at]
        if contending.sum() > 1 and close[contending].any(axis=0).sum() < contending.sum():
            fits[contending] = -np.inf
            fits[:, at] = -np.inf
            fits[contending, at] = HIDING


def _joined(fits: NDArray[np.float64]) -> dict[int, int]:
    """The track of each face, assigned greedily by best fit, each track once."""
    left, pairs = np.where(fits == HIDING, -np.inf, fits), {}
    while left.size and np.isfinite(left.max()):
        track, at = np.unravel_index(int(left.argmax()), left.shape)
        pairs[int(at)] = int(track)
        left[track], left[:, at] = -np.inf, -np.inf
    return pairs
