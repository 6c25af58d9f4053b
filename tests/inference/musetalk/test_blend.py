"""Faces into pictures: the whole-number mix to the last bit, and nothing changed that the mask does not cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from inference.engines.musetalk import blend  # noqa: E402
from inference.engines.musetalk.boxes import Box  # noqa: E402
from inference.engines.musetalk.masks import Mask  # noqa: E402

#: In a picture 120 wide and 90 high; some leave it on one side or another.
BOXES = [
    Box(20, 10, 80, 80),
    Box(0, 0, 120, 90),
    Box(-15, 20, 40, 70),
    Box(90, 30, 140, 110),
    Box(30, -20, 70, 40),
    Box(50, 50, 53, 52),
    Box(-20, -20, 236, 236),
]


def random_mask(random: np.random.Generator, box: Box) -> Mask:
    """Some rectangle of the box and the picture, with every strength in it."""
    shown = box.cut(120, 90)
    x, y = int(random.integers(shown.x1, shown.x2)), int(random.integers(shown.y1, shown.y2))
    return Mask(x, y, random.integers(0, 256, (shown.y2 - y, shown.x2 - x), dtype=np.uint8))


def mixed(below: int, above: int, strength: int) -> int:
    """Pillow's paste through a mask, one channel of one pixel."""
    total = below * (255 - strength) + above * strength + 128
    return ((total >> 8) + total) >> 8


def expected(picture: NDArray[np.uint8], face: NDArray[np.uint8], box: Box, mask: Mask) -> NDArray[np.uint8]:
    stretched = cv2.resize(face, (box.width, box.height))
    out = picture.copy()
    for row, line in enumerate(mask.alpha.tolist()):
        for column, strength in enumerate(line):
            x, y = mask.x + column, mask.y + row
            for channel in range(3):
                above = int(stretched[y - box.y1, x - box.x1, channel])
                out[y, x, channel] = mixed(int(picture[y, x, channel]), above, strength)
    return out


def test_the_mix_is_the_rounded_share() -> None:
    """The formula's own meaning: what it gives is the exact share, rounded."""
    for below, above in ((0, 255), (255, 0), (13, 200), (77, 77)):
        for strength in range(256):
            exact = (below * (255 - strength) + above * strength) / 255
            assert abs(mixed(below, above, strength) - exact) <= 0.5


@pytest.mark.parametrize("box", BOXES)
def test_a_face_is_pasted_to_the_last_bit(box: Box) -> None:
    random = np.random.default_rng(box.width)
    picture = random.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    face = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    mask = random_mask(random, box)
    wanted = expected(picture, face, box, mask)
    blend.paste(picture, face, box, mask)
    assert np.array_equal(picture, wanted)


@pytest.mark.parametrize("patches", [blend.patches, blend.counted])
def test_a_batch_on_the_device_gives_the_same_bytes(patches: Callable[..., Any]) -> None:
    random = np.random.default_rng(8)
    pictures = [random.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in BOXES]
    faces = random.integers(0, 256, (len(BOXES), 256, 256, 3), dtype=np.uint8)
    batch = [random_mask(random, box) for box in BOXES]
    layout = blend.layout(BOXES, batch, "cpu", least=(100, 50))
    assert layout.alpha.shape[1] >= 100
    made = patches(torch.from_numpy(blend.cut_out(pictures, layout)), torch.from_numpy(faces), layout)
    for picture, face, box, mask, patch in zip(pictures, faces, BOXES, batch, made.numpy(), strict=True):
        wanted = picture.copy()
        blend.paste(wanted, face, box, mask)
        blend.put_in(picture, patch, mask)
        assert np.array_equal(picture, wanted)


@pytest.mark.parametrize("patches", [blend.patches, blend.counted])
@pytest.mark.parametrize("side", [1, 2, 37, 127, 128, 129, 200, 255, 256, 257, 511, 512, 700])
def test_stretching_is_opencvs_at_every_size(patches: Callable[..., Any], side: int) -> None:
    face = np.random.default_rng(side).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    box = Box(0, 0, side, side + 3)
    mask = Mask(0, 0, np.full((side + 3, side), 255, np.uint8))
    layout = blend.layout([box], [mask], "cpu")
    below = torch.zeros(1, side + 3, side, 3, dtype=torch.uint8)
    made = patches(below, torch.from_numpy(face)[None], layout)[0].numpy()
    assert np.array_equal(made, cv2.resize(face, (side, side + 3)))


def test_where_the_mask_is_0_and_around_it_nothing_changes() -> None:
    random = np.random.default_rng(9)
    picture = random.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    before = picture.copy()
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:10, 5:10] = 200
    blend.paste(picture, random.integers(0, 256, (256, 256, 3), dtype=np.uint8), Box(20, 10, 80, 80), Mask(30, 40, alpha))
    changed = (picture != before).any(axis=2)
    assert changed[45:50, 35:40].mean() > 0.9
    changed[45:50, 35:40] = False
    assert not changed.any()
