"""Masks from a parsing map: which parts, their growing and shrinking, their square, their blur."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from inference.engines.musetalk import masks  # noqa: E402
from inference.engines.musetalk.boxes import Box  # noqa: E402
from inference.engines.musetalk.params import ParsingMode  # noqa: E402


def built(part: Any, box: Box, width: int, height: int, **how: float) -> masks.Mask | None:
    return masks.finished(masks.begun(part, box, width, height, **how))


def a_map(seed: int) -> NDArray[np.uint8]:
    """A parsing map with blobs of every class, each up to some ten pixels wide, and single pixels."""
    random = np.random.default_rng(seed)
    blobs = cv2.resize(random.integers(0, 19, (32, 32), dtype=np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
    blobs[(random.random((512, 512)) < 0.5) & (blobs > 14)] = 1
    return np.asarray(blobs, dtype=np.uint8)


def a_face() -> NDArray[np.uint8]:
    """A map as of a face: an ellipse of skin with a nose and a mouth, a neck below."""
    found = np.zeros((512, 512), np.uint8)
    cv2.rectangle(found, (190, 380), (320, 511), 14, -1)
    cv2.ellipse(found, (256, 256), (150, 200), 0, 0, 360, 1, -1)
    cv2.ellipse(found, (256, 250), (30, 60), 0, 0, 360, 10, -1)
    cv2.ellipse(found, (256, 350), (60, 30), 0, 0, 360, 12, -1)
    cv2.ellipse(found, (256, 350), (40, 12), 0, 0, 360, 11, -1)
    return found


def jaw(found: NDArray[np.uint8], left: int, right: int) -> NDArray[np.bool_]:
    """The published rule in OpenCV's words."""
    cone = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        half = min(row - 10, 10)
        cone[row, 16 - half : 16 + half + 1] = 1
    assert cone.sum() == 373
    cross = np.zeros((3, 35), np.uint8)
    cross[1, :], cross[:, 17] = 1, 1
    assert np.array_equal(cross, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3)))
    grown = cv2.dilate((found == 1).astype(np.uint8), cone)
    shrunk = cv2.erode(grown, cross, iterations=2)
    cheek = np.zeros((512, 512), bool)
    cheek[:, : 256 - left + 1] = cheek[:, 256 + right :] = True
    skin = np.where(cheek, shrunk, grown).astype(bool) & (found != 10)
    return np.asarray(skin | np.isin(found, [11, 12, 13]))


@pytest.mark.parametrize(("left", "right"), [(90, 90), (60, 120), (120, 60), (80, 80), (0, 0), (256, 256)])
def test_jaw_grows_skin_and_shrinks_cheeks_as_opencv_does(left: int, right: int) -> None:
    maps = np.stack([a_map(1), a_face(), np.zeros((512, 512), np.uint8), np.ones((512, 512), np.uint8)])
    made = masks.parts(torch.from_numpy(maps), "jaw", left, right).numpy()
    for one, found in zip(made, maps, strict=True):
        assert np.array_equal(one, jaw(found, left, right))


def test_raw_and_neck_are_lists_of_classes() -> None:
    found = a_map(2)
    maps = torch.from_numpy(found)[None]
    assert np.array_equal(masks.parts(maps, "raw")[0].numpy(), np.isin(found, [1, 11, 12, 13]))
    assert np.array_equal(masks.parts(maps, "neck")[0].numpy(), np.isin(found, [1, 11, 12, 13, 14]))


def test_a_pixel_has_the_class_of_the_highest_score() -> None:
    scores = torch.randn(2, 19, 8, 8, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(masks.classes(scores).numpy(), scores.numpy().argmax(axis=1))


@pytest.mark.parametrize(
    ("box", "square"),
    [
        (Box(100, 140, 201, 300), Box(30, 100, 270, 340)),  # middle 150, 220; 160 // 2 * 1.5 = 120
        (Box(0, 0, 100, 51), Box(-25, -50, 125, 100)),  # middle 50, 25; 75
        (Box(10, 10, 17, 15), Box(9, 8, 17, 16)),  # middle 13, 12; int(3 * 1.5) = 4
    ],
)
def test_the_square_is_half_as_large_again_around_the_boxs_middle(box: Box, square: Box) -> None:
    assert masks.square(box) == square


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_the_blur_is_an_odd_share_of_the_square(share: float) -> None:
    for side in range(20, 801):
        wanted = 2 * math.floor(share * side / 2) + 1
        assert masks.blur_width(side, share) == wanted
    assert (masks.blur_width(450, 0.05), masks.blur_width(450, 0.1)) == (23, 45)


def test_the_blur_has_opencvs_weights() -> None:
    random = np.random.default_rng(4)
    for width in range(1, 82, 2):
        picture = (random.random((width + 9, width + 12)) < 0.5).astype(np.uint8) * 255
        padded = np.pad(picture.astype(np.int64), width // 2, mode="reflect")
        weights = np.array(masks.blur_weights(width))
        across = np.stack([np.convolve(row, weights, "valid") for row in padded])
        both = np.stack([np.convolve(column, weights, "valid") for column in across.T]).T
        assert np.array_equal((both + 2**15) >> 16, cv2.GaussianBlur(picture, (width, width), 0)), width


def whole_mask(part: NDArray[np.bool_], box: Box, blur: float) -> NDArray[np.uint8]:
    """The published mask of the whole square (512 wide, so that nothing is resized), without cutting anything off."""
    around = masks.square(box)
    assert around.width == 512
    left, top = box.x1 - around.x1, box.y1 - around.y1
    kept = np.zeros((512, 512), np.uint8)
    kept[top : top + box.height, left : left + box.width] = 255
    kept &= part.astype(np.uint8) * 255
    kept[:256] = 0
    width = 2 * math.floor(blur * 512 / 2) + 1
    return np.asarray(cv2.GaussianBlur(kept, (width, width), 0), dtype=np.uint8)


@pytest.mark.parametrize("blur", [0.05, 0.1])
@pytest.mark.parametrize(
    ("x", "y", "width", "height"),
    [(400, 300, 280, 342), (400, 300, 342, 250), (-60, -40, 300, 342), (900, 700, 300, 342), (400, 300, 343, 100)],
)
def test_the_mask_is_the_lower_half_blurred_and_cut_to_the_box_and_the_picture(
    x: int, y: int, width: int, height: int, blur: float
) -> None:
    box, part = Box(x, y, x + width, y + height), jaw(a_face(), 90, 90)
    around = masks.square(box)
    mask = built(torch.from_numpy(part), box, 1000, 900, blur=blur)
    assert mask is not None
    wanted = np.zeros((2000, 2000), np.uint8)  # a picture with room on all sides, its 0 at 500
    wanted[around.y1 + 500 : around.y2 + 500, around.x1 + 500 : around.x2 + 500] = whole_mask(part, box, blur)
    outside = np.ones_like(wanted)
    shown = box.cut(1000, 900)
    outside[shown.y1 + 500 : shown.y2 + 500, shown.x1 + 500 : shown.x2 + 500] = 0
    wanted[outside == 1] = 0
    made = np.zeros_like(wanted)
    rows, columns = mask.alpha.shape
    made[mask.y + 500 : mask.y + 500 + rows, mask.x + 500 : mask.x + 500 + columns] = mask.alpha
    assert np.array_equal(made, wanted)
    assert min(mask.alpha[0].max(), mask.alpha[-1].max(), mask.alpha[:, 0].max(), mask.alpha[:, -1].max()) > 0


def test_a_smaller_face_has_a_smaller_mask_of_the_same_shape() -> None:
    part = torch.from_numpy(a_face() > 0)
    small = built(part, Box(200, 200, 300, 340), 640, 480)
    large = built(part, Box(400, 400, 600, 680), 1280, 960)
    assert small is not None
    assert large is not None
    rows, columns = small.alpha.shape
    assert abs(large.alpha.shape[0] - 2 * rows) <= 8
    shrunk = cv2.resize(large.alpha, (columns, rows), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small.alpha).mean() < 6


@pytest.mark.parametrize("box", [Box(700, 10, 800, 100), Box(10, -300, 100, -200), Box(3, 3, 4, 4), Box(50, 50, 50, 90)])
def test_where_nothing_would_change_there_is_no_mask(box: Box) -> None:
    assert built(torch.ones(512, 512, dtype=torch.bool), box, 640, 480) is None
    assert built(torch.zeros(512, 512, dtype=torch.bool), Box(100, 100, 200, 240), 640, 480) is None


def test_the_parser_sees_the_square_normalised_and_black_beyond_the_picture() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    box = Box(250, 100, 420, 442)  # its square is 512 wide: nothing is resized
    around = masks.square(box)
    whole = np.zeros((512, 512, 3), np.float32)
    top, left = max(0, -around.y1), max(0, -around.x1)
    inside = picture[max(0, around.y1) : around.y2, max(0, around.x1) : around.x2]
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    wanted = (whole / np.float32(255) - mean) / deviation
    made = masks.seen(torch.from_numpy(picture)[None], [box])
    assert made.shape == (1, 3, 512, 512)
    assert np.array_equal(made[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize("box", [Box(100, 60, 300, 280), Box(-20, 10, 60, 120), Box(40, 40, 62, 66)])
def test_where_bytes_need_not_be_the_published_ones_they_are_off_by_one_at_most(box: Box) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (360, 400, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    given = torch.from_numpy(picture)[None]
    deviation = torch.tensor(masks.DEVIATION).view(1, 3, 1, 1)
    apart = (masks.seen(given, [box]) - masks.seen(given, [box], exact=False)) * deviation * 255
    assert apart.abs().max() < 1.01
    assert apart.abs().mean() < 0.25


@pytest.mark.parametrize("mode", ["jaw", "raw"])
@pytest.mark.parametrize("side", [4, 60, 201, 341, 700])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 0.4), (0.4, 1)])
@pytest.mark.parametrize("others", [[], [Box(0, 0, 600, 600)]], ids=["alone", "with a larger one"])
def test_what_is_outside_of_the_region_changes_no_mask(
    side: int, mode: ParsingMode, width: float, height: float, others: list[Box]
) -> None:
    box = Box(300, 200, 300 + math.ceil(side * width), 200 + math.ceil(side * height))
    at = masks.region([box, *others])
    assert 0 <= at.y1 < 256
    for skin in (0.002, 0.01, 0.998):
        likely = [0.995 - skin / 2, 0.003, 0.002] if skin < 0.9 else [1 - skin, 0, 0]
        found = torch.from_numpy(
            np.random.default_rng(side).choice([0, 10, 12, 1], (1, 512, 512), p=[*likely, 1 - sum(likely)])
        )
        seen = masks.parts(found[:, at.y1 : at.y2, at.x1 : at.x2], mode, 60, 60, at)
        whole, made = (built(part[0], box, 1200, 1000) for part in (masks.parts(found, mode, 60, 60), seen))
        if whole is None:
            assert made is None
        else:
            assert made is not None
            assert (made.x, made.y) == (whole.x, whole.y)
            assert np.array_equal(made.alpha, whole.alpha)
