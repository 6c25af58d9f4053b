"""What is collected of a video picture by picture: nothing lost, nothing there twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from inference.engines.musetalk.avatar import BLOCK, LATENTS, Maker
from inference.engines.musetalk.boxes import Box
from inference.engines.musetalk.cache import Cache
from inference.engines.musetalk.masks import Mask
from tests import memory

#: Bytes of a block of latents.
BLOCK_BYTES = BLOCK * int(np.prod(LATENTS)) * 2


def test_pictures_keep_their_numbers_across_blocks() -> None:
    maker, faces = Maker(), {0, BLOCK - 1, BLOCK, BLOCK + 5}
    for number in range(BLOCK + 6):
        if number in faces:
            mask = Mask(number % 7, 1, np.full((2, 3), number % 251, np.uint8))
            maker.add(Box(number, 0, number + 9, 9), np.full(LATENTS, number % 100, np.float16), mask)
        else:
            maker.pass_by()
    made = maker.made(whole=True)
    assert len(made) == BLOCK + 6
    assert {number for number in range(len(made)) if made.has_face(number)} == faces
    assert all(made.box(number).x1 == number and made.mask(number).alpha[1, 2] == number % 251 for number in faces)
    assert [int(made.latents[number].max()) for number in sorted(faces)] == [number % 100 for number in sorted(faces)]
    assert not made.latents[1].any()


@memory.counted
def test_no_latents_are_in_memory_twice(tmp_path: Path) -> None:
    maker, before, made = Maker(), memory.resident(), []
    for _ in range(4 * BLOCK):
        maker.pass_by()
    assert memory.peak_of(lambda: made.append(maker.made(whole=True)), above=before) < 6 * BLOCK_BYTES
    assert made[0].latents.nbytes == 4 * BLOCK_BYTES
    assert memory.peak_of(lambda: Cache(tmp_path, 1 << 40).put("a", made[0]), above=before) < 6 * BLOCK_BYTES
