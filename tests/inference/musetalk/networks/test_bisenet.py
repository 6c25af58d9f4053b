"""The face parser against its arithmetic written out here, with the published file's names."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from torch.nn import functional as F  # noqa: E402

from inference.engines.musetalk.networks.bisenet import UNUSED, BiSeNet  # noqa: E402
from tests.fakes.checkpoints import with_unused_heads  # noqa: E402
from tests.inference.musetalk.networks.test_dwpose import scrambled  # noqa: E402

Tensor = Any
State = dict[str, Any]


def published_names() -> set[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    resnet = "cp.resnet"
    plain = [(f"{resnet}.conv1", f"{resnet}.bn1")]
    for layer in range(1, 5):
        for block in range(2):
            within = f"{resnet}.layer{layer}.{block}"
            plain += [(f"{within}.conv1", f"{within}.bn1"), (f"{within}.conv2", f"{within}.bn2")]
            if layer > 1 and block == 0:
                plain.append((f"{within}.downsample.0", f"{within}.downsample.1"))
    for arm in ("cp.arm16", "cp.arm32"):
        plain += [(f"{arm}.conv.conv", f"{arm}.conv.bn"), (f"{arm}.conv_atten", f"{arm}.bn_atten")]
    plain += [(f"cp.{name}.conv", f"cp.{name}.bn") for name in ("conv_head16", "conv_head32", "conv_avg")]
    plain += [("ffm.convblk.conv", "ffm.convblk.bn")]
    plain += [(f"{name}.conv.conv", f"{name}.conv.bn") for name in ("conv_out", "conv_out16", "conv_out32")]
    names = {f"{convolution}.weight" for convolution, _ in plain}
    names |= {f"{name}.{part}" for _, name in plain for part in norm}
    names |= {f"{name}.conv_out.weight" for name in ("conv_out", "conv_out16", "conv_out32")}
    return names | {"ffm.conv1.weight", "ffm.conv2.weight"}


def test_the_network_has_the_published_names_and_as_many_numbers() -> None:
    network = BiSeNet()
    whole = with_unused_heads(network)
    assert set(whole) == published_names()
    assert len(whole) == 191
    counted = sum(t.numel() for name, t in whole.items() if not name.endswith(("mean", "var", "tracked")))
    assert counted == 13_300_416
    assert {name for name in whole if not name.startswith(UNUSED)} == set(network.state_dict())


# ---- the whole, walked by hand ---------------------------------------------------------------------------------------------


def normed(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def convolved(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    return normed(state, f"{name}.bn", F.conv2d(x, weight, padding=weight.shape[-1] // 2)).clamp(min=0)


def residual(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    made = normed(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)).clamp(min=0)
    made = normed(state, f"{name}.bn2", F.conv2d(made, state[f"{name}.conv2.weight"], padding=1))
    if f"{name}.downsample.0.weight" in state:
        x = normed(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride))
    return (x + made).clamp(min=0)


def refined(state: State, name: str, x: Tensor) -> Tensor:
    x = convolved(state, f"{name}.conv", x)
    means = F.avg_pool2d(x, tuple(x.shape[2:]))
    return x * torch.sigmoid(normed(state, f"{name}.bn_atten", F.conv2d(means, state[f"{name}.conv_atten.weight"])))


def walked(state: State, pictures: Tensor) -> Tensor:
    x = F.conv2d(pictures, state["cp.resnet.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(normed(state, "cp.resnet.bn1", x).clamp(min=0), 3, 2, 1)
    levels = []
    for layer in range(1, 5):
        x = residual(state, f"cp.resnet.layer{layer}.0", x, 1 if layer == 1 else 2)
        x = residual(state, f"cp.resnet.layer{layer}.1", x, 1)
        levels.append(x)
    _, eighth, sixteenth, thirty_second = levels
    whole = convolved(state, "cp.conv_avg", F.avg_pool2d(thirty_second, tuple(thirty_second.shape[2:])))
    up = refined(state, "cp.arm32", thirty_second) + whole.expand(-1, -1, *thirty_second.shape[2:])
    up = convolved(state, "cp.conv_head32", up.repeat_interleave(2, 2).repeat_interleave(2, 3))
    up = refined(state, "cp.arm16", sixteenth) + up
    context = convolved(state, "cp.conv_head16", up.repeat_interleave(2, 2).repeat_interleave(2, 3))
    x = convolved(state, "ffm.convblk", torch.cat((eighth, context), 1))
    gate = F.conv2d(F.avg_pool2d(x, tuple(x.shape[2:])), state["ffm.conv1.weight"]).clamp(min=0)
    x = x + x * torch.sigmoid(F.conv2d(gate, state["ffm.conv2.weight"]))
    x = F.conv2d(convolved(state, "conv_out.conv", x), state["conv_out.conv_out.weight"])
    return F.interpolate(x, tuple(pictures.shape[2:]), mode="bilinear", align_corners=True)


def test_the_whole_network_is_the_walk_written_here() -> None:
    network = scrambled(BiSeNet(4))
    pictures = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    wanted = walked(network.state_dict(), pictures)
    with torch.no_grad():
        found = network(pictures)
    assert found.shape == (2, 19, 96, 128)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=float(wanted.std()) * 1e-4)
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.9999
