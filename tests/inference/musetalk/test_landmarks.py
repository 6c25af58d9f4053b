"""DWPose around its network: what it is shown, what its answer means."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference.engines.musetalk import landmarks  # noqa: E402

MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def test_left_and_right_change_places_in_the_mirror() -> None:
    body = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    feet = [20, 21, 22, 17, 18, 19]
    jaw = [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    brows_nose = [26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28, 29, 30, 35, 34, 33, 32, 31]
    eyes = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    lips = [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    face = [23 + point for point in jaw + brows_nose + eyes + lips]
    hands = list(range(112, 133)) + list(range(91, 112))
    assert list(landmarks.MIRRORED) == body + feet + face + hands
    assert [landmarks.MIRRORED[point] for point in landmarks.MIRRORED] == list(range(133))


def shown(width: float, height: float, middle: tuple[float, float]) -> tuple[float, float, float]:
    """Pixels of the picture for one of the network's, and the picture's place that its left top pixel shows."""
    scale_x, scale_y = width * 1.25, height * 1.25
    if scale_x > scale_y * 288 / 384:
        scale_y = scale_x * 384 / 288
    else:
        scale_x = scale_y * 288 / 384
    return scale_x / 288, middle[0] - scale_x / 2, middle[1] - scale_y / 2


@pytest.mark.parametrize(("width", "height"), [(640, 360), (270, 480), (300, 400), (33, 500)])
def test_the_network_sees_the_picture_padded_to_its_shape_on_black(width: int, height: int) -> None:
    picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    seen = landmarks.interpolated(torch.from_numpy(picture)[None], landmarks.whole(torch.from_numpy(picture)[None]))
    assert seen.shape == (1, 3, 384, 288)
    pixel, left, top = shown(width, height, (width / 2, height / 2))
    bordered = np.zeros((height + 2, width + 2, 3))
    bordered[1:-1, 1:-1] = picture
    for row, column in np.random.default_rng(1).integers(0, (384, 288), (300, 2)):
        x, y = column * pixel + left, row * pixel + top
        wanted = np.zeros(3)
        if -1 < x < width and -1 < y < height:
            at_x, at_y = int(np.floor(x)), int(np.floor(y))
            share_x, share_y = x - at_x, y - at_y
            four = bordered[at_y + 1 : at_y + 3, at_x + 1 : at_x + 3]
            wanted = np.einsum("y,x,yxc->c", [1 - share_y, share_y], [1 - share_x, share_x], four)
        assert np.abs(seen[0, :, row, column].numpy() - wanted).max() <= 0.501


def test_what_it_sees_is_opencvs_affine_picture() -> None:
    y, x = np.mgrid[:360, :640]
    picture = np.stack([x * 0.3, y * 0.6, (x + y) * 0.2], axis=2).astype(np.uint8)  # smooth: OpenCV counts in 1/32 pixel
    pixel, left, top = shown(640, 360, (320, 180))
    matrix = np.array([[pixel, 0, left], [0, pixel, top]])
    wanted = cv2.warpAffine(picture, matrix, (288, 384), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    given = torch.from_numpy(picture)[None], landmarks.whole(torch.from_numpy(picture)[None])
    seen = landmarks.warp(*given)[0].permute(1, 2, 0).numpy() * DEVIATION + MEAN
    assert np.abs(seen - wanted).max() < 1e-4
    off = np.abs(landmarks.interpolated(*given)[0].permute(1, 2, 0).numpy() - wanted)
    assert np.percentile(off, 99) <= 1
    assert off.max() <= 12, "at the picture's edges"


def test_each_picture_can_have_a_region_of_its_own() -> None:
    pictures = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 200, 300, 3), dtype=np.uint8))
    regions = np.array([[10.0, 20, 110, 170], [250, -30, 350, 100]])
    for warp in (landmarks.warp, landmarks.interpolated):
        both = warp(pictures, regions)
        for at in range(2):
            assert torch.equal(both[at], warp(pictures[at : at + 1], regions[at : at + 1])[0])


def scores(bins: Any, count: int) -> Any:
    """Highest at the given bin of each point, falling evenly to both sides."""
    return 1000.0 - (torch.arange(count)[None, None] - torch.as_tensor(bins)[..., None]).abs()


@pytest.mark.parametrize("region", [(0.0, 0.0, 640.0, 360.0), (100.0, 50.0, 180.0, 333.0)])
def test_the_likeliest_bins_become_places_in_the_picture(region: tuple[float, ...]) -> None:
    random = np.random.default_rng(4)
    at_x, at_y = random.integers(0, 576, (2, 133)), random.integers(0, 768, (2, 133))
    made = landmarks.decode(scores(at_x, 576), scores(at_y, 768), np.array([region, region]))
    middle = ((region[0] + region[2]) / 2, (region[1] + region[3]) / 2)
    pixel, left, top = shown(region[2] - region[0], region[3] - region[1], middle)
    assert np.abs(made[..., 0] - (at_x / 2 * pixel + left)).max() < 1e-6
    assert np.abs(made[..., 1] - (at_y / 2 * pixel + top)).max() < 1e-6
    assert (made[..., 2] == 1000).all()


def test_a_point_that_is_not_there_lies_outside_of_all_that_was_seen() -> None:
    across, down = scores(np.full((1, 133), 100), 576), scores(np.full((1, 133), 100), 768)
    across[0, 5] -= 1000
    made = landmarks.decode(across, down, np.array([[0.0, 0, 288, 384]]))
    assert made[0, 5, 2] == 0
    assert np.allclose(made[0, 5, :2], [-0.5 * 1.25 - 36, -0.5 * 1.25 - 48])
    assert (made[0, 6, :2] > 0).all()


def test_the_mirror_images_points_are_turned_back_and_averaged() -> None:
    random = torch.Generator().manual_seed(5)
    across, down = torch.rand(4, 133, 576, generator=random), torch.rand(4, 133, 768, generator=random)
    both_x, both_y = landmarks.with_mirrored(across, down)
    for picture in range(2):
        for point in (0, 1, 22, 23, 50, 70, 90, 91, 132):
            other = landmarks.MIRRORED[point]
            turned = torch.flip(across[picture + 2, other], dims=(0,))
            assert torch.equal(both_x[picture, point], (across[picture, point] + turned) / 2)
            assert torch.equal(both_y[picture, point], (down[picture, point] + down[picture + 2, other]) / 2)


@pytest.mark.parametrize("region", [None, (120.0, 60.0, 320.0, 300.0)])
def test_a_spot_in_the_picture_is_found_where_it_is(region: tuple[float, ...] | None) -> None:
    pictures = np.zeros((2, 360, 640, 3), np.uint8)
    places = [(200, 150), (301, 88)]
    for picture, place in zip(pictures, places, strict=True):
        cv2.circle(picture, place, 8, (255, 255, 255), -1)
    calls = []

    def network(seen: Any) -> Any:
        calls.append(len(seen))
        light = seen.mean(1) - seen.mean(1).amin((1, 2), keepdim=True)
        y = (light.sum(2) * torch.arange(384)).sum(1) / light.sum((1, 2))
        x = (light.sum(1) * torch.arange(288)).sum(1) / light.sum((1, 2))
        every = torch.ones(1, 133)
        return scores((x * 2)[:, None] * every, 576), scores((y * 2)[:, None] * every, 768)

    regions = None if region is None else np.array([region, region])
    points = landmarks.locate(network, torch.from_numpy(pictures), regions)
    assert calls == [4], "pictures and their mirror images go in together"
    assert points.shape == (2, 133, 3)
    step = 1.4 if region else 4
    for found, place in zip(points, places, strict=True):
        assert np.abs(found[:, :2] - place).max() <= step


def test_the_faces_points_are_68_of_the_133() -> None:
    points = np.arange(133)[None, :, None] * np.ones(3)
    assert landmarks.face68(points)[0, :, 0].tolist() == list(range(23, 91))
