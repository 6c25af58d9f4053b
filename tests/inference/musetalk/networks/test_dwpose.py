"""The pose network against formulas written out here: names of the published file in, the papers' arithmetic on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from inference.engines.musetalk.networks import dwpose  # noqa: E402

Tensor = Any
State = dict[str, Any]


def scrambled(network: Any, seed: int = 0) -> Any:
    """The network with every number random, the running statistics too, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.7 * max(tensor[0].numel(), 1) ** -0.5 if tensor.dim() > 1 else 1, generator=generator)
    return network.eval()


def names_of_a_stage(stage: int, blocks: int) -> list[str]:
    """The modules with a convolution and its norm within one stage."""
    within = f"backbone.stage{stage}"
    pooling = [f"{within}.1.conv1", f"{within}.1.conv2"] if stage == 4 else []
    layer = f"{within}.{2 if stage == 4 else 1}"
    parts = ["conv1", "conv2.depthwise_conv", "conv2.pointwise_conv"]
    inner = [f"{layer}.blocks.{block}.{part}" for block in range(blocks) for part in parts]
    return [f"{within}.0", *pooling, f"{layer}.main_conv", f"{layer}.short_conv", f"{layer}.final_conv", *inner]


def test_the_network_has_the_published_names_and_as_many_numbers() -> None:
    network = dwpose.DWPose()
    assert sum(parameter.numel() for parameter in network.parameters()) == 33_610_919
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    modules = [f"backbone.stem.{index}" for index in range(3)]
    for stage, blocks in enumerate((3, 6, 6, 3), 1):
        modules += names_of_a_stage(stage, blocks)
    expected = {f"{name}.{part}" for name in modules for part in ("conv.weight", *(f"bn.{norm}" for norm in norms))}
    for stage in range(1, 5):
        layer = f"backbone.stage{stage}.{2 if stage == 4 else 1}.attention.fc"
        expected |= {f"{layer}.weight", f"{layer}.bias"}
    head = "final_layer.weight final_layer.bias mlp.0.g mlp.1.weight gau.ln.g gau.uv.weight gau.gamma gau.beta gau.o.weight"
    expected |= {f"head.{name}" for name in (*head.split(), "gau.res_scale.scale", "cls_x.weight", "cls_y.weight")}
    assert set(network.state_dict()) == expected


def test_the_attention_unit_is_that_of_the_paper() -> None:
    unit = scrambled(dwpose.GatedAttention(6, 4))
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in unit.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(2, 5, 6))
    expected = []
    for tokens in x:
        size = np.sqrt((tokens**2).mean(axis=1, keepdims=True))
        normed = tokens / np.maximum(size, 1e-5) * state["ln.g"]
        mixed = normed @ state["uv.weight"].T
        mixed = mixed / (1 + np.exp(-mixed))
        gate, value, base = mixed[:, :12], mixed[:, 12:24], mixed[:, 24:]
        query = base * state["gamma"][0] + state["beta"][0]
        key = base * state["gamma"][1] + state["beta"][1]
        weights = np.maximum(query @ key.T / np.sqrt(4), 0) ** 2
        expected.append(tokens * state["res_scale.scale"] + (gate * (weights @ value)) @ state["o.weight"].T)
    with torch.no_grad():
        found = unit(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_vector_of_zeros_stays_zeros() -> None:
    assert torch.equal(dwpose.ScaleNorm(4)(torch.zeros(1, 2, 4)), torch.zeros(1, 2, 4))


def test_a_channel_is_gated_by_the_mean_of_all() -> None:
    gate = scrambled(dwpose.ChannelAttention(4))
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1)) * 6
    means = x.numpy().mean(axis=(2, 3))
    wanted = means @ gate.fc.weight.detach().numpy()[:, :, 0, 0].T + gate.fc.bias.detach().numpy()
    wanted = np.clip(wanted / 6 + 0.5, 0, 1)[:, :, None, None] * x.numpy()
    np.testing.assert_allclose(gate(x).detach(), wanted, rtol=1e-4, atol=1e-5)


# ---- the whole, walked by hand ---------------------------------------------------------------------------------------------


def convolved(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, norm with eps 1e-5, x * sigmoid(x)."""
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
    norm = {part: state[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")}
    x = (x - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt() * norm["weight"] + norm["bias"]
    return x * torch.sigmoid(x)


def cross_stage(state: State, name: str, x: Tensor, blocks: int, identity: bool) -> Tensor:
    main, short = convolved(state, f"{name}.main_conv", x), convolved(state, f"{name}.short_conv", x)
    for block in range(blocks):
        inner = convolved(state, f"{name}.blocks.{block}.conv1", main)
        inner = convolved(state, f"{name}.blocks.{block}.conv2.depthwise_conv", inner)
        inner = convolved(state, f"{name}.blocks.{block}.conv2.pointwise_conv", inner)
        main = main + inner if identity else inner
    both = torch.cat((main, short), 1)
    gate = F.conv2d(both.mean((2, 3), keepdim=True), state[f"{name}.attention.fc.weight"], state[f"{name}.attention.fc.bias"])
    return convolved(state, f"{name}.final_conv", both * (gate / 6 + 0.5).clamp(0, 1))


def test_the_whole_network_is_the_walk_written_here() -> None:
    network = scrambled(dwpose.DWPose(4))
    state = network.state_dict()
    pictures = torch.randn(2, 3, 384, 288, generator=torch.Generator().manual_seed(2))
    x = convolved(state, "backbone.stem.0", pictures, stride=2)
    x = convolved(state, "backbone.stem.2", convolved(state, "backbone.stem.1", x))
    for stage, blocks in enumerate((3, 6, 6, 3), 1):
        x = convolved(state, f"backbone.stage{stage}.0", x, stride=2)
        if stage == 4:
            x = convolved(state, "backbone.stage4.1.conv1", x)
            x = torch.cat([x, *(F.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13))], 1)
            x = convolved(state, "backbone.stage4.1.conv2", x)
        x = cross_stage(state, f"backbone.stage{stage}.{2 if stage == 4 else 1}", x, blocks, stage < 4)
    maps = F.conv2d(x, state["head.final_layer.weight"], state["head.final_layer.bias"], padding=3)
    assert maps.shape == (2, 133, 12, 9)
    tokens = maps.reshape(2, 133, 108)
    tokens = tokens / (tokens.square().mean(-1, keepdim=True).sqrt()) * state["head.mlp.0.g"]
    tokens = tokens @ state["head.mlp.1.weight"].T
    with torch.no_grad():
        tokens = network.head.gau(tokens)
        along_x, along_y = network(pictures)
    for found, name in ((along_x, "head.cls_x.weight"), (along_y, "head.cls_y.weight")):
        wanted = tokens @ state[name].T
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=float(wanted.std()) * 1e-3)
    assert (along_x.shape, along_y.shape) == ((2, 133, 576), (2, 133, 768))


def test_a_picture_of_a_batch_is_answered_as_if_it_were_alone() -> None:
    network = scrambled(dwpose.DWPose(4))
    pictures = torch.randn(3, 3, 384, 288, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        together, alone = network(pictures)[0][1:2], network(pictures[1:2])[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=float(alone.std()) * 1e-4)
