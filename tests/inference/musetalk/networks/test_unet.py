"""The walk without a time against diffusers' own forward at step 0, with the published shape of the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from inference.engines.musetalk.networks.unet import Unet  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402

#: What the published configuration has, and the fakes' has smaller.
PUBLISHED = checkpoints.UNET | {
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": 8,
    "layers_per_block": 2,
    "norm_num_groups": 32,
}


def networks(config: dict[str, Any]) -> tuple[Any, Unet]:
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):  # they begin as zeros, which would hide what is added to them
                parameter.normal_(std=0.1)
    return network, Unet(copy.deepcopy(network)).eval()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_folded_step_is_step_0(count: int) -> None:
    network, walk = networks(checkpoints.UNET | {"layers_per_block": 2})
    latents, speech = torch.randn(count, 8, 32, 32), torch.randn(count, 50, 384)
    with torch.no_grad():
        wanted = network(latents, torch.tensor([0]), encoder_hidden_states=speech).sample
        found = walk(latents, speech)
    assert found.shape == (count, 4, 32, 32)
    assert float((found - wanted).abs().max() / wanted.std()) < 1e-5


def test_another_step_is_not_what_was_folded() -> None:
    network, walk = networks(checkpoints.UNET)
    latents, speech = torch.randn(1, 8, 32, 32), torch.randn(1, 50, 384)
    with torch.no_grad():
        other = network(latents, torch.tensor([500]), encoder_hidden_states=speech).sample
        found = walk(latents, speech)
    assert float((found - other).abs().max() / other.std()) > 1e-2


def test_masked_latents_come_before_those_of_the_reference() -> None:
    _, walk = networks(checkpoints.UNET)
    masked, reference, speech = torch.randn(1, 4, 32, 32), torch.randn(1, 4, 32, 32), torch.randn(1, 50, 384)
    with torch.no_grad():
        first, second = (walk(torch.cat(pair, 1), speech) for pair in ((masked, reference), (reference, masked)))
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_published_configuration_has_the_published_size() -> None:
    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel.from_config(PUBLISHED)
    assert sum(parameter.numel() for parameter in network.parameters()) == 849_947_844
    assert len(network.state_dict()) == 686


@pytest.mark.slow
def test_at_the_published_size_folding_adds_nothing_to_what_rounding_does() -> None:
    network, walk = networks(PUBLISHED)
    latents, speech = torch.randn(1, 8, 32, 32), torch.randn(1, 50, 384)
    with torch.no_grad():
        found, plain = walk(latents, speech), network(latents, torch.tensor([0]), encoder_hidden_states=speech).sample
        del walk
        exact = network.double()(latents.double(), torch.tensor([0]), encoder_hidden_states=speech.double()).sample
    assert float((found - plain).abs().max()) < 1e-5
    ours, theirs = (float((made - exact).abs().mean()) for made in (found, plain))
    assert ours < 1.2 * theirs
