"""Resizing to the last bit as OpenCV and Pillow do it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from inference.engines.musetalk import resize  # noqa: E402


def pattern(side: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:side, :side]
    return np.asarray((y * 53 + x * 97 + y * x * 29) % 256, dtype=np.uint8)


#: What Pillow 13.0.0 makes of `pattern(from)`: Image.fromarray(pattern(from)).resize((to, to), filter).
PILLOW = {
    (7, 5, "bicubic"): [
        [46, 145, 89, 153, 114],
        [80, 95, 119, 143, 52],
        [145, 56, 133, 109, 169],
        [153, 199, 139, 164, 218],
        [63, 140, 149, 154, 156],
    ],
    (5, 8, "bicubic"): [
        [0, 28, 99, 190, 161, 28, 85, 146],
        [14, 66, 141, 140, 122, 97, 90, 89],
        [48, 109, 173, 78, 78, 173, 105, 40],
        [92, 69, 51, 114, 125, 85, 135, 178],
        [130, 73, 13, 93, 121, 91, 160, 214],
        [161, 129, 77, 20, 64, 192, 167, 128],
        [197, 176, 137, 86, 89, 135, 99, 65],
        [219, 202, 172, 148, 117, 78, 47, 31],
    ],
    (9, 4, "bilinear"): [[90, 112, 126, 93], [111, 117, 138, 137], [137, 159, 168, 166], [145, 147, 102, 176]],
    (4, 7, "bilinear"): [
        [0, 35, 90, 146, 183, 92, 35],
        [19, 58, 119, 135, 138, 106, 85],
        [49, 94, 164, 116, 67, 127, 165],
        [80, 84, 91, 99, 106, 113, 117],
        [110, 74, 18, 81, 144, 98, 69],
        [140, 110, 63, 62, 73, 119, 149],
        [159, 133, 92, 51, 28, 133, 199],
    ],
}


@pytest.mark.parametrize(("source", "target", "kind"), PILLOW)
def test_squares_are_resized_as_pillow_does(source: int, target: int, kind: resize.Filter) -> None:
    picture = torch.from_numpy(pattern(source))[..., None]
    assert resize.pillow(picture, target, kind)[..., 0].tolist() == PILLOW[source, target, kind]


def test_a_part_is_the_part_of_the_whole() -> None:
    picture = torch.from_numpy(pattern(40))[..., None].expand(40, 40, 3)
    for side in (25, 40, 63):
        whole = resize.pillow(picture, side, "bicubic")
        part = resize.pillow(picture, side, "bicubic", slice(7, 20), slice(3, 24))
        assert torch.equal(part, whole[7:20, 3:24])


def filtered(line: NDArray[np.float64], target: int, kind: str) -> NDArray[np.float64]:
    """The filter's formula on one line, without rounding."""
    scale = len(line) / target
    wide = max(scale, 1.0)
    out = []
    for pixel in range(target):
        middle, total, weights = (pixel + 0.5) * scale, 0.0, 0.0
        for at, value in enumerate(line):
            t = abs(at + 0.5 - middle) / wide
            if kind == "bilinear":
                weight = max(0.0, 1 - t)
            else:
                weight = 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0
            total, weights = total + weight * value, weights + weight
        out.append(min(max(total / weights, 0.0), 255.0))
    return np.array(out)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [(30, 17), (17, 30), (64, 9)])
def test_the_weights_are_those_of_the_filters_formula(source: int, target: int, kind: resize.Filter) -> None:
    picture = np.random.default_rng(source).integers(0, 256, (source, source), dtype=np.uint8)
    across = np.stack([filtered(line, target, kind) for line in picture.astype(np.float64)])
    both = np.stack([filtered(line, target, kind) for line in across.T]).T
    made = resize.pillow(torch.from_numpy(picture)[..., None], target, kind)[..., 0].numpy()
    assert np.abs(made - both).max() <= 1.5  # two roundings


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 128), (131, 97), (300, 411), (33, 700), (9, 5), (1, 1)])
def test_lanczos_is_opencvs(height: int, width: int) -> None:
    picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wanted = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_LANCZOS4)
    assert np.array_equal(resize.lanczos(torch.from_numpy(picture), 256, 256).numpy(), wanted)


@pytest.mark.parametrize(("height", "width"), [(90, 160), (37, 23), (200, 300)])
def test_the_quick_way_is_pillows_within_one(height: int, width: int) -> None:
    pictures = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (2, 120, 200, 3), dtype=np.uint8))
    made = resize.quick(pictures, height, width)
    whole = torch.nn.functional.interpolate(
        pictures.permute(0, 3, 1, 2).double(), size=(height, width), mode="bilinear", antialias=True
    )
    assert made.shape == (2, 3, height, width)
    assert torch.equal(made, made.round())
    assert (made - whole).abs().max() <= 1.01
