"""Our loop and our networks against diffusers' own pipeline on the same weights (FastWan's equalities, all in 32 bits)."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import AutoencoderKLWan, WanTransformer3DModel  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from inference.engines.fastwan import layout, sampling, text, vae  # noqa: E402
from inference.engines.fastwan.decoder import Decoder, Past, parts  # noqa: E402
from inference.engines.fastwan.models import Models  # noqa: E402
from inference.engines.fastwan.shape import Shape  # noqa: E402
from inference.engines.fastwan.transformer import Transformer  # noqa: E402
from tests.fakes.wan_pipeline import pipeline  # noqa: E402

SIZE = Shape(width=96, height=64, frames=13)
PROMPT = "a person smiles"


@pytest.fixture(scope="module")
def parts_of_theirs(repository: Path) -> dict[str, Any]:
    """diffusers' own networks with the numbers of the same files."""
    transformer, vae_ = (
        kind.from_config(layout.part(repository, name).config)
        for kind, name in ((WanTransformer3DModel, "transformer"), (AutoencoderKLWan, "vae"))
    )
    for network, name in ((transformer, "transformer"), (vae_, "vae")):
        network.load_state_dict(load_file(layout.part(repository, name).files[0]))
    return {"transformer": transformer.eval(), "vae": vae_.eval()}


def theirs(parts: dict[str, Any], heard: Any, picture: Any, seed: int) -> Any:
    """The latents of diffusers' pipeline."""
    pipe = pipeline(**parts)
    pipe.scheduler.generator = torch.Generator("cpu").manual_seed(seed)
    given = {} if picture is None else {"image": Image.fromarray(picture)}
    return pipe(
        prompt_embeds=heard,
        height=SIZE.height,
        width=SIZE.width,
        num_frames=SIZE.frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=pipe.scheduler.generator,
        output_type="latent",
        **given,
    ).frames


def ours(models: Models, heard: Any, picture: Any, seed: int) -> Any:
    image = None if picture is None else vae.encode(models, picture)
    network = Transformer(models, heard, SIZE.latents, picture is not None)
    return sampling.denoise(network, sampling.noise(seed, SIZE.latents), image, models.device, lambda _: None)


@pytest.fixture(scope="module")
def picture() -> Any:
    return np.random.default_rng(0).integers(0, 256, (SIZE.height, SIZE.width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def heard(models: Models) -> Any:
    return text.filled_up(text.embed(models, PROMPT))


@pytest.mark.parametrize("with_image", [True, False], ids=["image", "text"])
def test_our_loop_gives_what_diffusers_pipeline_gives(
    models: Models, parts_of_theirs: dict[str, Any], heard: Any, picture: Any, with_image: bool
) -> None:
    given = picture if with_image else None
    expected, got = theirs(parts_of_theirs, heard, given, 7), ours(models, heard, given, 7)
    assert got.shape == expected.shape == SIZE.latents
    assert float((got - expected).abs().max() / expected.abs().max()) < 5e-6


def test_the_steps_are_at_1000_757_and_522() -> None:
    asked = []

    def velocity(x: Any, time: int) -> Any:
        asked.append(time)
        return torch.zeros_like(x)

    drawn = sampling.noise(0, (1, 1, 1, 2, 2))
    made = sampling.denoise(velocity, drawn, None, torch.device("cpu"), lambda _: None)
    assert asked == [1000, 757, 522]
    after_first = (1 - 0.757) * drawn.start + 0.757 * drawn.between[0]
    expected = (1 - 0.522) * after_first + 0.522 * drawn.between[1]
    assert torch.allclose(made, expected)


def test_two_rows_of_modulation_are_one_a_token(models: Models, parts_of_theirs: dict[str, Any], heard: Any) -> None:
    torch.manual_seed(1)
    x = torch.randn(SIZE.latents)
    tokens = x.shape[2] * (x.shape[3] // 2) * (x.shape[4] // 2)
    times = torch.full((1, tokens), 757.0)
    times[:, : tokens // x.shape[2]] = 0
    with torch.inference_mode():
        expected = parts_of_theirs["transformer"](x, times, heard, return_dict=False)[0]
        got = Transformer(models, heard, SIZE.latents, image=True)(x, 757)
    assert float((got - expected).abs().max() / expected.abs().max()) < 5e-6


def test_one_time_is_the_same_time_for_every_token(models: Models, parts_of_theirs: dict[str, Any], heard: Any) -> None:
    torch.manual_seed(2)
    x = torch.randn(SIZE.latents)
    tokens = x.shape[2] * (x.shape[3] // 2) * (x.shape[4] // 2)
    with torch.inference_mode():
        expected = parts_of_theirs["transformer"](x, torch.full((1, tokens), 522.0), heard, return_dict=False)[0]
        got = Transformer(models, heard, SIZE.latents, image=False)(x, 522)
    assert float((got - expected).abs().max() / expected.abs().max()) < 5e-6


def test_blocks_that_are_streamed_give_what_resident_ones_give(models: Models, heard: Any) -> None:
    torch.manual_seed(3)
    x = torch.randn(SIZE.latents)
    streamed = replace(models, plan=replace(models.plan, transformer="streamed"))
    expected, got = (Transformer(each, heard, SIZE.latents, image=True)(x, 757) for each in (models, streamed))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_the_size_of_the_parts_does_not_change_the_pictures(
    models: Models, parts_of_theirs: dict[str, Any], chunk: int
) -> None:
    torch.manual_seed(4)
    latents = torch.randn(1, 48, 7, 4, 6)
    with torch.inference_mode():
        expected = parts_of_theirs["vae"].decode(latents).sample
    decoder, past = Decoder(models.vae), Past()
    got = torch.cat([decoder.part(latents[:, :, part], past) for part in parts(7, chunk)], dim=2).clamp(-1, 1)
    assert got.shape == expected.shape == (1, 3, 25, 64, 96)
    assert float((got - expected).abs().max()) < 1e-5


def test_the_image_is_encoded_as_diffusers_does(models: Models, parts_of_theirs: dict[str, Any], picture: Any) -> None:
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.inference_mode():
        found = parts_of_theirs["vae"].encode(pixels).latent_dist.mode()
    config = parts_of_theirs["vae"].config
    mean, std = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (config.latents_mean, config.latents_std))
    assert torch.allclose(vae.encode(models, picture), (found - mean) / std, atol=1e-5)


def test_an_image_is_encoded_in_all_of_its_32_bits_and_nothing_else_is(models: Models, picture: Any) -> None:
    cudnn, seen = torch.backends.cudnn, []
    before = (cudnn.conv.fp32_precision, cudnn.allow_tf32, cudnn.benchmark)
    hook = models.vae.encoder.register_forward_pre_hook(lambda *_: seen.append((cudnn.conv.fp32_precision, cudnn.benchmark)))
    try:
        vae.encode(models, picture)
    finally:
        hook.remove()
    assert set(seen) == {("ieee", before[-1])}
    assert (cudnn.conv.fp32_precision, cudnn.allow_tf32, cudnn.benchmark) == before


def test_a_prompt_encoded_at_its_length_is_the_prompt_encoded_with_filling(models: Models) -> None:
    numbers = text.tokens(models, PROMPT)
    filled = torch.nn.functional.pad(numbers, (0, text.TOKENS - numbers.shape[1]))
    mask = (torch.arange(text.TOKENS) < numbers.shape[1]).long()[None]
    with torch.inference_mode():
        exact = copy.deepcopy(models.text).float()
        expected = exact(input_ids=filled, attention_mask=mask).last_hidden_state[:, : numbers.shape[1]]
        got = exact(input_ids=numbers, attention_mask=torch.ones_like(numbers)).last_hidden_state
    assert torch.allclose(got, expected, atol=1e-5)


def test_the_older_stacks_sigmas_would_change_little(models: Models, heard: Any, picture: Any) -> None:
    image = vae.encode(models, picture)
    network = Transformer(models, heard, SIZE.latents, image=True)
    drawn = sampling.noise(5, SIZE.latents)
    exact, older = (
        sampling.denoise(network, drawn, image, models.device, lambda _: None, sigmas)
        for sigmas in (sampling.SIGMAS, sampling.FASTVIDEO_SIGMAS)
    )
    assert 0 < float((exact - older).abs().max() / exact.abs().max()) < 5e-3
