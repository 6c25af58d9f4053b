"""The quick blocks against diffusers' own, with the published shape of the networks where their size matters."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.models.resnet import ResnetBlock2D  # noqa: E402
from diffusers.models.upsampling import Upsample2D  # noqa: E402

from inference.engines.fused import Fused  # noqa: E402
from inference.engines.musetalk.networks import quick  # noqa: E402
from inference.engines.musetalk.networks.unet import Unet  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
PUBLISHED_VAE = checkpoints.VAE | {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}


def vae(config: dict[str, Any] = checkpoints.VAE) -> Any:
    """With biases and norms of all sizes: they begin as zeros and ones, which would hide what becomes of them."""
    torch.manual_seed(0)
    network = diffusers.AutoencoderKL.from_config(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return network.to(memory_format=torch.channels_last)


def apart(found: Any, wanted: Any) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().std())


def kinds(network: Any) -> set[type]:
    return {type(module) for module in network.modules()}


@pytest.mark.parametrize(
    ("config", "count"),
    [(checkpoints.VAE, 3), pytest.param(PUBLISHED_VAE, 1, marks=pytest.mark.slow)],
    ids=["small", "published"],
)
def test_the_vae_is_diffusers_own(config: dict[str, Any], count: int) -> None:
    published = vae(config)
    ours = copy.deepcopy(published)
    quick.quicken("vae", ours, Fused())
    assert not kinds(ours) & {ResnetBlock2D, Upsample2D}
    latents, pictures = torch.randn(count, 4, 32, 32), torch.rand(count, 3, 256, 256) * 2 - 1
    with torch.inference_mode():
        assert apart(ours.decode(latents).sample, published.decode(latents).sample) < 1e-4
        assert apart(ours.encode(pictures).latent_dist.mean, published.encode(pictures).latent_dist.mean) < 1e-4


def test_the_unet_is_the_same_with_its_upsampling_merged() -> None:
    torch.manual_seed(0)
    published = Unet(diffusers.UNet2DConditionModel.from_config(checkpoints.UNET)).eval()
    ours = copy.deepcopy(published)
    quick.quicken("unet", ours, Fused())
    assert Upsample2D not in kinds(ours)
    latents, speech = torch.randn(2, 8, 32, 32), torch.randn(2, 50, 384)
    with torch.inference_mode():
        assert apart(ours(latents, speech), published(latents, speech)) < 1e-4


def test_a_norm_is_right_far_from_zero_too() -> None:
    """Where the mean is a hundred times the spread, as squares minus a square would lose it."""
    torch.manual_seed(0)
    x = (torch.randn(2, 16, 24, 40) + 100 * torch.randn(1, 16, 1, 1)).contiguous(memory_format=torch.channels_last)
    given = x, torch.randn(16), torch.randn(16), torch.randn(16)
    x, added, weight, bias = (each.double() for each in given)
    exact = quick.norm_silu_by_torch(x, added, weight, bias, 4, 1e-6)
    assert apart(quick.norm_silu(*given, 4, 1e-6), exact) < 1e-5


def test_in_16_bits_it_is_no_further_from_the_exact_picture_than_diffusers_own() -> None:
    published, latents = vae(), torch.randn(2, 4, 32, 32)
    with torch.inference_mode():
        exact = published.decode(latents).sample
        plain = published.to(torch.bfloat16)
        ours = copy.deepcopy(plain)
        quick.quicken("vae", ours, Fused())
        far, near = (apart(network.decode(latents.bfloat16()).sample, exact) for network in (plain, ours))
    assert near < 1.5 * far


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_compiled_serves_every_other_number_of_pictures() -> None:
    ours, fused = vae(), Fused("first")
    exact = copy.deepcopy(ours).double()  # torch's own norms, which serve a single picture, are inexact
    quick.quicken("vae", ours, fused)
    with torch.inference_mode():
        for count in (3, 2, 5, 1):
            latents = torch.randn(count, 4, 32, 32)
            with torch.profiler.profile() as seen:
                found = ours.decode(latents).sample
            assert apart(found, exact.decode(latents.double()).sample) < 5e-4
            if count == 3:
                ready = fused.ready
                assert ready == len(fused._twins) >= 5
                fused.settle()
            elif count > 1:  # every norm, shortcut and upsampling
                ran = [type(module) for module in ours.decoder.modules()]
                calls = 3 * ran.count(quick.Residual) + ran.count(quick.Doubled) + 1
                assert sum("Torch-Compiled Region" in event.name for event in seen.events()) == calls
    assert fused.ready == ready
