"""What the encoder sees: exact bytes, exact shares, the half-black one first."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference.engines.musetalk import crops  # noqa: E402
from inference.engines.musetalk.boxes import Box  # noqa: E402


def test_a_square_is_the_box_stretched_with_lanczos_on_bytes() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (3, 200, 300, 3), dtype=np.uint8)
    boxes = [Box(20, 30, 120, 171), Box(0, 0, 300, 200), Box(250, 100, 340, 230)]
    made = crops.squares(torch.from_numpy(pictures), boxes).numpy()
    parts = [pictures[0, 30:171, 20:120], pictures[1], pictures[2, 100:200, 250:300]]
    for one, part in zip(made, parts, strict=True):
        assert np.array_equal(one, cv2.resize(part, (256, 256), interpolation=cv2.INTER_LANCZOS4))


def test_the_halves_are_the_formulas_to_the_last_bit() -> None:
    faces = np.random.default_rng(2).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    shares = (faces / 255.0).astype(np.float32)
    whole = (shares - np.float32(0.5)) / np.float32(0.5)
    blacked = whole.copy()
    blacked[:, 128:] = -1
    made_masked, made_whole = crops.halves(torch.from_numpy(faces))
    assert np.array_equal(made_masked.permute(0, 2, 3, 1).numpy(), blacked)
    assert np.array_equal(made_whole.permute(0, 2, 3, 1).numpy(), whole)


def test_the_half_black_one_comes_first() -> None:
    masked, whole = torch.full((1, 4, 32, 32), 1.0), torch.full((1, 4, 32, 32), 2.0)
    assert crops.together(masked, whole)[0, :, 0, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
