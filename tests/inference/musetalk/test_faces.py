"""S3FD around its network: what it is shown, what its answer means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engines.musetalk import faces  # noqa: E402
from tests.fakes.checkpoints import steady_detector  # noqa: E402

STRIDES = (4, 8, 16, 32, 64, 128)


def answers(seed: int, pictures: int, height: int, width: int) -> list[Any]:
    """Random answers of the network's shape, with some ten faces a picture."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for stride in STRIDES:
        shape = (pictures, 2, max(1, height // stride), max(1, width // stride))
        logits = torch.randn(shape, generator=random)
        logits[:, 0] += 3
        made.append((logits, torch.randn(pictures, 4, *shape[2:], generator=random)))
    return made


def published(given: list[Any], picture: int) -> list[list[float]]:
    """The published loop over cells, above one half."""
    found = []
    for scale, (logits, places) in enumerate(given):
        stride = 2 ** (scale + 2)
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                no, yes = (math.exp(value) for value in logits[picture, :, row, column].tolist())
                if yes / (no + yes) <= 0.5:
                    continue
                dx, dy, dw, dh = places[picture, :, row, column].tolist()
                side = stride * 4
                x = stride / 2 + column * stride + dx * 0.1 * side
                y = stride / 2 + row * stride + dy * 0.1 * side
                w, h = math.exp(dw * 0.2) * side, math.exp(dh * 0.2) * side
                found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, yes / (no + yes)])
    return found


def test_boxes_are_those_of_the_published_loop_for_every_picture_of_a_batch() -> None:
    given = answers(1, 3, 200, 320)
    made = faces.candidates(given)
    assert len(made) == 3
    for picture, found in enumerate(made):
        wanted = np.array(published(given, picture))
        assert len(wanted) > 5
        assert np.abs(found[found[:, 4].argsort()] - wanted[wanted[:, 4].argsort()]).max() <= 1e-3


def test_of_overlapping_boxes_the_likeliest_stays() -> None:
    found = faces.candidates(answers(2, 1, 400, 400))[0]
    rest, wanted = sorted(range(len(found)), key=lambda at: -found[at, 4]), []
    while rest:
        best = rest.pop(0)
        wanted.append(best)
        for other in list(rest):
            (x1, y1, x2, y2, _), (u1, v1, u2, v2, _) = found[best], found[other]
            width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            shared = max(0, width) * max(0, height)
            both = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - shared
            if shared / both > 0.3:
                rest.remove(other)
    made = faces.distinct(found).tolist()
    assert made == wanted
    assert len(made) < len(found)


def test_no_face_is_no_box() -> None:
    given = [(torch.tensor([5.0, -5.0]).view(1, 2, 1, 1), torch.zeros(1, 4, 1, 1)) for _ in STRIDES]
    assert faces.candidates(given)[0].shape == (0, 5)
    assert faces.distinct(np.zeros((0, 5))).tolist() == []


def one_face(seen: list[Any]) -> Any:
    """A network that finds a face of 64 pixels in the third row and fifth column of cells of 16 pixels."""

    def network(pictures: Any) -> Any:
        seen.append(pictures)
        made = []
        for stride in STRIDES:
            rows, columns = pictures.shape[2] // stride + 1, pictures.shape[3] // stride + 1
            logits = torch.zeros(len(pictures), 2, rows, columns)
            logits[:, 0] = 9
            if stride == 16:
                logits[:, 1, 2, 4] = 20
            made.append((logits, torch.zeros(len(pictures), 4, rows, columns)))
        return made

    return network


def test_large_pictures_are_looked_at_smaller_and_boxes_are_the_large_ones() -> None:
    seen: list[Any] = []
    pictures = torch.full((2, 720, 1280, 3), 200, dtype=torch.uint8)
    found = faces.detect(one_face(seen), pictures)
    assert seen[0].shape == (2, 3, 360, 640)
    assert torch.allclose(seen[0][0, :, 100, 100], torch.tensor([96.0, 83.0, 77.0]))
    for boxes in found:
        assert np.allclose(boxes[:, :4], [[(72 - 32) * 2, (40 - 32) * 2, (72 + 32) * 2, (40 + 32) * 2]])


@pytest.mark.parametrize(("height", "width", "side"), [(360, 640, 640), (100, 80, 640), (720, 1280, None)])
def test_small_pictures_and_parity_are_looked_at_as_they_are(height: int, width: int, side: int | None) -> None:
    seen: list[Any] = []
    pictures = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, height, width, 3), dtype=np.uint8))
    found = faces.detect(one_face(seen), pictures, side_px=side)
    assert torch.equal(seen[0], pictures.permute(0, 3, 1, 2).float() - torch.tensor([104.0, 117, 123]).view(1, 3, 1, 1))
    assert np.allclose(found[0][:, :4], [[40, 8, 104, 72]])


@pytest.mark.parametrize(("height", "width"), [(60, 1280), (1001, 33), (40, 4000)])
def test_a_strip_is_looked_at_and_its_faces_are_where_they_are(height: int, width: int) -> None:
    pictures = torch.full((1, height, width, 3), 20, dtype=torch.uint8)
    assert faces.detect(steady_detector(), pictures)[0].shape == (0, 5)
    pictures[:, height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = 250
    [found] = faces.detect(steady_detector(), pictures)
    along = found[:, [0, 2]] if width > height else found[:, [1, 3]]
    longer = max(height, width)
    assert along.min() == pytest.approx(longer / 3, abs=longer / 8)
    assert along.max() == pytest.approx(longer / 2, abs=longer / 4)


def test_the_longest_strip_of_all_is_looked_at() -> None:
    found = faces.detect(steady_detector(), torch.full((2, 64, 16384, 3), 20, dtype=torch.uint8))
    assert [one.shape for one in found] == [(0, 5)] * 2


def test_the_surroundings_of_a_face_are_head_and_shoulders_in_the_networks_shape() -> None:
    made = faces.surroundings(np.array([[100.0, 100, 180, 200], [0, 0, 50, 50]]))
    assert made.tolist() == [[-10, 25, 290, 425], [-50, -37.5, 100, 162.5]]
    assert faces.surroundings(np.array([0.0, 0, 50, 50])).tolist() == made[1].tolist()
