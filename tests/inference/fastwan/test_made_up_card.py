"""The engine on a card that is not there: every line that only a card runs is run, and gives what the processor gives."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

if torch.cuda.is_available():
    pytest.skip("there is a real card: tests/gpu", allow_module_level=True)

from inference.engine import Options  # noqa: E402
from inference.engines.fastwan import transformer  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from tests.fakes import made_up_card  # noqa: E402
from tests.inference.fastwan.runs import latents, painting, run  # noqa: E402
from weights.plans import PLANS, Plan  # noqa: E402


@pytest.mark.parametrize("plan", [PLANS[0], PLANS[2], PLANS[5]], ids=lambda plan: plan.name)
def test_latents_and_pictures_are_what_the_processor_makes(
    plan: Plan, engine: Engine, repository: Path, tmp_path: Path
) -> None:
    image = painting(tmp_path / "i.png")
    expected = latents(engine, image)
    shown = np.stack(list(engine._pictures(expected, lambda _: None)))
    with made_up_card.inserted() as card:
        on_card = loaded(repository, plan)
        made = latents(on_card, image)
        pictures = np.stack(list(on_card._pictures(expected, lambda _: None)))
        del on_card
    assert float((made - expected).norm() / expected.norm()) < 0.02
    assert np.abs(pictures.astype(int) - shown).mean() < 2
    assert card.time.complaints == []


@pytest.mark.parametrize(
    ("card_gib", "taken_gib", "plan"),
    [(12, 0.5, 4), (16, 0.5, 4), (24, 0.5, 3), (32, 0.5, 2), (80, 0.5, 0), (80, 52, 2), (24, 16, 5)],
)
def test_the_plan_is_chosen_by_what_is_free_on_the_card(card_gib: int, taken_gib: float, plan: int, repository: Path) -> None:
    """The weights are small, the plans' numbers those of the published ones; `taken_gib` is another program's."""
    with made_up_card.inserted(card_gib * 2**30) as card:
        card.used_bytes = int(taken_gib * 2**30)
        engine = Engine()
        engine.configure(Options(compile="off"))
        engine.load(repository, "cuda:0")
        assert engine._loaded.plan == PLANS[plan]
        del engine


def test_a_job_becomes_a_video(repository: Path, tmp_path: Path) -> None:
    with made_up_card.inserted():
        metrics = run(loaded(repository, PLANS[4]), tmp_path / "o.mp4", painting(tmp_path / "i.png"), num_frames=5)
    assert (metrics.extra["plan"], metrics.frames) == (PLANS[4].name, 5)


@pytest.mark.slow
def test_a_jobs_memory_is_its_own_and_not_what_the_largest_one_before_it_took(repository: Path, tmp_path: Path) -> None:
    with made_up_card.inserted() as card:
        engine, image = loaded(repository, PLANS[4]), painting(tmp_path / "i.png")
        sizes = (64, 64, 192, 64)  # the very first job of a process also pays for what is made once
        _, first, large, last = (run(engine, tmp_path / "o.mp4", image, num_frames=5, width=each) for each in sizes)
        assert last.peak_vram_mib == round(card.peak_bytes / 2**20, 1)
        del engine
    assert last.peak_vram_mib == first.peak_vram_mib != large.peak_vram_mib
    kept = [each.extra["reserved_vram_mib"] for each in (first, large, last)]
    assert kept[0] < kept[1] == kept[2]


def test_the_words_that_the_text_encoder_knows_are_on_the_card_once(repository: Path) -> None:
    with made_up_card.inserted():
        text = loaded(repository, PLANS[2])._loaded.text
        words = {id(each.home) for each in text.parameters() if each.shape[0] == text.config.vocab_size}
    assert len(words) == 1


def test_a_device_on_which_cudnn_has_no_attention_takes_the_next_kernel(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert transformer._working(torch.device("cpu"), torch.bfloat16, 8) == transformer.KERNELS[1:]
    assert "cuDNN attention is disabled" in caplog.text


def loaded(repository: Path, plan: Plan) -> Engine:
    """An engine on the card, by this plan; what torch compiles for a card cannot run here."""
    engine = Engine()
    engine.configure(Options(compile="off"))
    engine.load(repository, "cuda:0")
    engine._use(plan)
    return engine
