"""FastWan on a card gives what it gives on a CPU, in all plans, with everything compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from inference.engine import Options  # noqa: E402
from inference.engines.fastwan import models, sampling, text, tiny, vae  # noqa: E402
from inference.engines.fastwan.decoder import Decoder, Past, parts  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from inference.engines.fastwan.transformer import Transformer  # noqa: E402
from inference.engines.fused import Fused  # noqa: E402
from tests.fakes import fastwan  # noqa: E402
from tests.inference.fastwan.runs import BESIDE, painting, run  # noqa: E402
from tests.inference.fastwan.test_engine import Full  # noqa: E402
from tests.inference.fastwan.test_fused import Counting, made_by_twins  # noqa: E402
from weights import plans  # noqa: E402
from weights.plans import PLANS  # noqa: E402

SHAPE = (1, 48, 4, 8, 6)


def latents(repository: Path, device: str, dtype: Any, plan: Any, fused: Fused) -> tuple[Any, models.Models]:
    loaded = models.load(repository, device, dtype, plan)
    heard = text.filled_up(text.embed(loaded, "a person smiles"))
    network = Transformer(loaded, heard, SHAPE, False, fused)
    made = sampling.denoise(network, sampling.noise(3, SHAPE), None, loaded.device, lambda _: None)
    return made.cpu(), loaded


@pytest.mark.parametrize("when", ["off", "first"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_plan_gives_the_same_latents_and_pictures(card: str, repository: Path, plan: Any, when: Any) -> None:
    expected, on_cpu = latents(repository, "cpu", torch.float32, BESIDE, Fused())
    fused = Fused(when)
    got, on_card = latents(repository, card, torch.bfloat16, plan, fused)
    assert float((got - expected).norm() / expected.norm()) < 0.05
    pictures = [
        np.stack(list(vae.pictures(each, Decoder(each.vae, how), expected, each.plan.chunk, each.plan.tiled, lambda _: None)))
        for each, how in ((on_cpu, Fused()), (on_card, fused))
    ]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 3


@pytest.mark.parametrize("when", ["off", "first"])
@pytest.mark.parametrize("name", ["whole", "streamed"])
def test_8_bits_are_multiplied_by_cards_that_can_and_give_nearly_the_same(
    card: str, repository: Path, name: str, when: Any
) -> None:
    expected, _ = latents(repository, "cpu", torch.float32, BESIDE, Fused())
    plan = next(plan for plan in plans.offered("fp8") if plan.name == name)
    got, on_card = latents(repository, card, torch.bfloat16, plan, Fused(when))
    assert float((got - expected).norm() / expected.norm()) < 0.1
    assert on_card.transformer.blocks[0].ffn.net[2].multiplied is (torch.cuda.get_device_capability(card) >= (8, 9))


def test_the_tiny_decoder_gives_the_same_pictures(card: str, repository: Path, tmp_path: Path) -> None:
    fastwan.write_tiny(tmp_path)
    expected, on_cpu = latents(repository, "cpu", torch.float32, BESIDE, Fused())
    on_card = replace(on_cpu, device=torch.device(card))
    pictures = [
        np.stack(
            list(vae.pictures(each, tiny.Decoder(tiny.load(tmp_path, each.device, kind)), expected, 2, False, lambda _: None))
        )
        for each, kind in ((on_cpu, torch.float32), (on_card, torch.float16))
    ]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 1


def test_in_a_job_of_another_size_everything_that_was_compiled_is_used(card: str, repository: Path) -> None:
    made = Counting("first")

    def job(height: int) -> None:
        shape, image = (1, 48, 4, height, 6), torch.zeros(1, 48, 1, height, 6, device=card)
        network = Transformer(loaded, torch.zeros(1, 512, loaded.transformer.config.text_dim), shape, True, made)
        made_of = sampling.denoise(network, sampling.noise(3, shape), image, loaded.device, lambda _: None)
        list(vae.pictures(loaded, Decoder(loaded.vae, made), made_of, 2, False, lambda _: None))

    loaded = models.load(repository, card, torch.bfloat16, PLANS[0])
    job(4)
    assert made.ready == len(made._twins) == 6
    made.settle()
    made.calls = 0
    assert made_by_twins(lambda: job(8)) == made.calls > 100


def test_blocks_that_are_streamed_give_what_resident_ones_give(card: str, repository: Path) -> None:
    resident, streamed = (
        latents(repository, card, torch.bfloat16, replace(PLANS[0], transformer=kind), Fused())[0]
        for kind in ("resident", "streamed")
    )
    assert torch.equal(resident, streamed)


def test_the_engine_makes_the_same_file_twice(card: str, repository: Path, tmp_path: Path) -> None:
    engine = Engine()
    engine.configure(Options(cache_dir=tmp_path / "cache", compile="first"))
    engine.load(repository, card)
    made = [run(engine, tmp_path / f"{name}.mp4", painting(tmp_path / "i.png")) for name in "ab"]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert made[0].peak_vram_mib


def test_out_of_memory_leaves_nothing_of_the_old_weights_on_the_card(card: str, repository: Path, tmp_path: Path) -> None:
    engine = Engine()
    engine.load(repository, card)
    engine._use(PLANS[3])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    engine._loaded.transformer.proj_out = Full(engine._loaded.transformer.proj_out, 1)
    assert run(engine, tmp_path / "o.mp4", painting(tmp_path / "i.png")).extra["plan"] == PLANS[4].name
    assert torch.cuda.memory_allocated() < before


def test_a_decode_of_the_planned_size_takes_the_memory_that_the_plan_says(card: str) -> None:
    with torch.device(card):
        vae_ = diffusers.AutoencoderKLWan(
            **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "is_residual": True},
            **{"in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
            temperal_downsample=[False, True, True],
        ).to(torch.bfloat16)
        latents = torch.randn(1, 48, 9, 44, 80, dtype=torch.bfloat16)
    torch.backends.cudnn.benchmark = True
    needed = plans.decode_bytes(PLANS[0], 33, 704, 1280)
    if torch.cuda.mem_get_info(card)[0] < 2 * needed:
        pytest.skip("the card is too small for the largest plan")
    decoder, past, before = Decoder(vae_), Past(), torch.cuda.memory_allocated(card)
    for round_ in range(2):  # in the first one kernels are chosen, with memory of their own
        past = Past()
        torch.cuda.reset_peak_memory_stats(card)
        for part in parts(9, 4):
            decoder.part(latents[:, :, part], past)
        peak = torch.cuda.max_memory_allocated(card) - before
        assert peak <= needed + plans.RESERVE_BYTES or round_ == 0
