"""The face detector against its arithmetic written out here, with the published file's names."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from inference.engines.musetalk.networks.s3fd import S3FD, STRIDES, Normed  # noqa: E402
from tests.inference.musetalk.networks.test_dwpose import scrambled  # noqa: E402


def test_the_network_has_the_published_names_and_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in S3FD().state_dict().items()}
    groups = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    layers, inward = {}, 3
    for group, (count, channels) in enumerate(groups, 1):
        for layer in range(1, count + 1):
            layers[f"conv{group}_{layer}"], inward = (channels, inward, 3, 3), channels
    layers |= {"fc6": (1024, 512, 3, 3), "fc7": (1024, 1024, 1, 1), "conv6_1": (256, 1024, 1, 1), "conv6_2": (512, 256, 3, 3)}
    layers |= {"conv7_1": (128, 512, 1, 1), "conv7_2": (256, 128, 3, 3)}
    answers = {"conv3_3_norm": 256, "conv4_3_norm": 512, "conv5_3_norm": 512, "fc7": 1024, "conv6_2": 512, "conv7_2": 256}
    for name, channels in answers.items():
        layers[f"{name}_mbox_conf"] = (4 if name == "conv3_3_norm" else 2, channels, 3, 3)
        layers[f"{name}_mbox_loc"] = (4, channels, 3, 3)
    expected: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in layers.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    expected |= {"conv3_3_norm.weight": (256,), "conv4_3_norm.weight": (512,), "conv5_3_norm.weight": (512,)}
    assert shapes == expected


def test_a_pixels_channels_are_brought_to_a_learned_length() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    norm = Normed(3, 10.0)
    wanted = 10 * x / (np.sqrt((x**2).sum(axis=1, keepdims=True)) + 1e-10)
    np.testing.assert_allclose(norm(torch.tensor(x, dtype=torch.float32)).detach(), wanted, rtol=1e-5)


def test_a_length_that_a_half_cannot_hold_is_still_right() -> None:
    norm = Normed(512, 8.0).half()
    found = norm(torch.full((1, 512, 1, 1), 500.0, dtype=torch.half))
    torch.testing.assert_close(found.float(), torch.full((1, 512, 1, 1), 8 / 512**0.5), rtol=1e-3, atol=0)


def test_the_whole_network_is_the_walk_written_here() -> None:
    network = scrambled(S3FD(4))
    state = network.state_dict()
    picture = torch.randn(1, 3, 150, 200, generator=torch.Generator().manual_seed(1)) * 60

    def layer(name: str, x: torch.Tensor, stride: int = 1, padding: int = 1) -> torch.Tensor:  # type: ignore[name-defined]
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    x, kept = picture, []
    for group, count in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(1, count + 1):
            x = layer(f"conv{group}_{number}", x).clamp(min=0)
        if group >= 3:
            length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
            kept.append((f"conv{group}_3_norm", x / length * state[f"conv{group}_3_norm.weight"][:, None, None]))
        x = F.max_pool2d(x, 2)
    x = layer("fc7", layer("fc6", x, padding=3).clamp(min=0), padding=0).clamp(min=0)
    kept.append(("fc7", x))
    x = layer("conv6_2", layer("conv6_1", x, padding=0).clamp(min=0), 2).clamp(min=0)
    kept.append(("conv6_2", x))
    kept.append(("conv7_2", layer("conv7_2", layer("conv7_1", x, padding=0).clamp(min=0), 2).clamp(min=0)))
    with torch.no_grad():
        answers = network(picture)
    assert len(answers) == len(STRIDES) == 6
    for (name, source), (found_face, found_box) in zip(kept, answers, strict=True):
        face = layer(f"{name}_mbox_conf", source)
        if face.shape[1] == 4:
            face = torch.stack((torch.maximum(torch.maximum(face[:, 0], face[:, 1]), face[:, 2]), face[:, 3]), 1)
        torch.testing.assert_close(found_face, face, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found_box, layer(f"{name}_mbox_loc", source), rtol=1e-4, atol=1e-5)
