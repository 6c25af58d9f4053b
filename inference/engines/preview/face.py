"""Where the face is in every frame of a clip, using the face and eye detectors that ship with OpenCV.

Detection is slow and jittery, heads are slow and steady: so it runs on every few frames, near the last position first, and the
results are smoothed over time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from media.still import Picture

#: Every STEP-th frame is searched; the step doubles while nothing is found, up to MAX_STEP.
STEP, MAX_STEP = 5, 20

#: A face is looked for with the picture's longer side at these sizes, the next only if the one before found none.
SEARCH_SIDES_PX = (480, 960)
#: The smallest face that is found at those sizes.
MIN_PX = 40
#: The size that the surroundings of a known face are brought to: the face is then about half as wide.
NEAR_SIDE_PX = 200

#: A face missing for longer than this, in seconds, is gone; for less, its path is interpolated.
GAP_S = 1.0
#: The averaging time of a pose, in seconds.
SMOOTH_S = 0.12

#: The upright, centred face that the lips are looked for in: side in pixels, distance of the eyes, and where their middle is.
PATCH_PX, PATCH_EYES_PX, PATCH_MIDDLE = 192, 64, (96.0, 56.0)
#: The most frames of which a patch is kept.
MAX_PATCHES = 40

#: Where the eyes are in a face's box if they cannot be seen: middle as a share of the box, distance, angle.
USUAL_EYES = (0.5, 0.38, 0.49, 0.0)

#: (PATCH_PX, PATCH_PX, 3) uint8 RGB.
Patch = NDArray[np.uint8]


class Pose(NamedTuple):
    """One row of `Finder.poses`: the middle between the eyes and their distance in pixels, the head's tilt in radians."""

    x: float
    y: float
    eyes: float
    tilt: float


class Finder:
    """Pass it all frames in order (`look`), then get the poses."""

    def __init__(self) -> None:
        folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]
        self._face = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))
        self._eye = cv2.CascadeClassifier(str(folder / "haarcascade_eye.xml"))
        if self._face.empty() or self._eye.empty():
            raise RuntimeError(f"OpenCV's face detector is missing or broken: {folder}")
        self.pictures = 0
        self.looks = 0
        self.patches: list[Patch] = []
        self._boxes: dict[int, tuple[float, float, float]] = {}  # by picture: left, top, side
        self._eyes: dict[int, tuple[float, float, float, float]] = {}  # by picture: as USUAL_EYES
        self._last: tuple[float, float, float] | None = None
        self._step, self._next = STEP, 0

    @property
    def seen(self) -> bool:
        return bool(self._boxes)

    def look(self, picture: Picture) -> None:
        """Process the next frame of the clip."""
        number = self.pictures
        self.pictures += 1
        if number < self._next:
            return
        self.looks += 1
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        box = (self._near(grey) if self._last else None) or self._anywhere(grey)
        self._last = box
        self._step = STEP if box else min(2 * self._step, MAX_STEP)
        self._next = number + self._step
        if box:
            self._boxes[number] = box
            self._look_at_eyes(picture, grey, box)

    def _anywhere(self, grey: NDArray[Any]) -> tuple[float, float, float] | None:
        for side in SEARCH_SIDES_PX:
            scale = min(1.0, side / max(grey.shape))
            found = self._faces(_scaled(grey, scale), MIN_PX)
            if found:
                left, top, width = max(found, key=lambda box: box[2])
                return left / scale, top / scale, width / scale
            if scale == 1.0:
                break
        return None

    def _near(self, grey: NDArray[Any]) -> tuple[float, float, float] | None:
        left, top, side = self._last or (0.0, 0.0, 0.0)
        x0, y0 = max(0, int(left - side / 2)), max(0, int(top - side / 2))
        part = grey[y0 : int(top + side * 1.5), x0 : int(left + side * 1.5)]
        scale = min(1.0, NEAR_SIDE_PX / max(part.shape))
        found = self._faces(_scaled(part, scale), int(0.7 * side * scale))
        if not found:
            return None
        x, y, width = max(found, key=lambda box: box[2])
        return x0 + x / scale, y0 + y / scale, width / scale

    def _faces(self, grey: NDArray[Any], smallest: int) -> list[tuple[float, float, float]]:
        found = self._face.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest))
        return [(float(x), float(y), float(width)) for x, y, width, _ in found]

    def _look_at_eyes(self, picture: Picture, grey: NDArray[Any], box: tuple[float, float, float]) -> None:
        left, top, side = box
        upper = grey[max(0, int(top)) : int(top + 0.6 * side), max(0, int(left)) : int(left + side)]
        scale = 160 / side
        found = self._eye.detectMultiScale(
            _scaled(upper, scale), scaleFactor=1.1, minNeighbors=4, minSize=(22, 22), maxSize=(60, 60)
        )
        middles = [((x + width / 2) / 160, (y + height / 2) / 160) for x, y, width, height in found]
        eyes = _pair(middles)
        if eyes:
            self._eyes[self.pictures - 1] = eyes
            if len(self.patches) < MAX_PATCHES:
                self.patches.append(patch(picture, _pose(box, eyes)))
        elif not self.patches:
            self.patches.append(patch(picture, _pose(box, USUAL_EYES)))

    def poses(self, rate: float) -> NDArray[np.float64]:
        """(pictures, 4), each row a Pose, NaN where there is no face. rate: frames per second."""
        usual = np.median(list(self._eyes.values()), axis=0) if self._eyes else np.array(USUAL_EYES)
        known = sorted(self._boxes)
        # The tilt changes with the head; the eyes' position in the box hardly does.
        tilts = (
            np.interp(known, sorted(self._eyes), [self._eyes[at][3] for at in sorted(self._eyes)])
            if self._eyes
            else [0.0] * len(known)
        )
        rows = np.array([_pose(self._boxes[at], (*usual[:3], tilt)) for at, tilt in zip(known, tilts, strict=True)])
        every = np.arange(self.pictures)
        poses = np.stack([np.interp(every, known, rows[:, column]) for column in range(4)], axis=1)
        distance = _distance(every, known)
        gone = distance > max(GAP_S * rate / 2, STEP)
        poses = np.stack([_smoothed(poses[:, column], SMOOTH_S * rate) for column in range(4)], axis=1)
        poses[gone] = np.nan
        return poses


def patch(picture: Picture, pose: Pose) -> Patch:
    """The face upright, at one size and place."""
    scale = PATCH_EYES_PX / pose.eyes
    matrix = cv2.getRotationMatrix2D((pose.x, pose.y), math.degrees(pose.tilt), scale)
    matrix[:, 2] += (PATCH_MIDDLE[0] - pose.x, PATCH_MIDDLE[1] - pose.y)
    turned = cv2.warpAffine(picture, matrix, (PATCH_PX, PATCH_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, dtype=np.uint8)


def _pose(box: tuple[float, float, float], eyes: tuple[float, ...]) -> Pose:
    left, top, side = box
    return Pose(left + eyes[0] * side, top + eyes[1] * side, eyes[2] * side, float(eyes[3]))


def _pair(middles: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
    """The two detected eyes that form the most plausible pair, in the form of USUAL_EYES; None if no pair does."""
    best: tuple[float, tuple[float, float, float, float]] | None = None
    for x1, y1 in middles:
        for x2, y2 in middles:
            distance, tilt = math.hypot(x2 - x1, y2 - y1), math.atan2(y2 - y1, x2 - x1)
            if x1 < 0.5 < x2 and 0.3 < distance < 0.65 and abs(tilt) < 0.5:
                eyes = ((x1 + x2) / 2, (y1 + y2) / 2, distance, tilt)
                unlike = sum(abs(one - usual) for one, usual in zip(eyes, USUAL_EYES, strict=True))
                if best is None or unlike < best[0]:
                    best = (unlike, eyes)
    return best[1] if best else None


def _distance(every: NDArray[Any], known: list[int]) -> NDArray[Any]:
    """Each frame's distance, in frames, from the nearest known one."""
    at = np.searchsorted(known, every)
    marks = np.array([known[0], *known, known[-1]])
    return np.asarray(np.minimum(np.abs(every - marks[at]), np.abs(marks[at + 1] - every)))


def _smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    reach = max(1, int(3 * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 0.5)) ** 2)
    return np.asarray(np.convolve(np.pad(values, reach, mode="edge"), window / window.sum(), mode="valid"))


def _scaled(grey: NDArray[Any], scale: float) -> NDArray[Any]:
    if scale == 1.0:
        return grey
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how))
