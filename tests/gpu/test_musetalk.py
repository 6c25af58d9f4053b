"""MuseTalk on a card gives what it gives on a CPU: in halves, recorded, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engines.musetalk import models, mouths  # noqa: E402
from media import video  # noqa: E402
from tests.inference.musetalk.engines import clip, loaded, run, tone, waves  # noqa: E402


def pictures(path: Path) -> Any:
    return np.stack(list(video.pictures(video.open_clip(path)))).astype(int)


def test_a_card_makes_the_frames_that_a_cpu_makes(card: str, weights: Path, tmp_path: Path) -> None:
    source, speech = waves(tmp_path / "v.mp4", [1.0] * 10), tone(tmp_path / "a.wav", 1.0)
    made = []
    for name, device in (("cpu", "cpu"), ("card", card)):
        metrics = run(loaded(weights, device, batch_size=4), tmp_path / f"{name}.mp4", source, speech)
        assert metrics.frames == 25
        made.append(pictures(tmp_path / f"{name}.mp4"))
    assert np.abs(made[0] - made[1]).mean() < 2


def test_a_recording_plays_what_was_recorded(card: str, weights: Path) -> None:
    found = loaded(weights, card, batch_size=1)._models["1.5"]
    play = mouths.recorded(found, 4)
    for count in (4, 1, 3, 2):
        given = mouths._anything(found, count)
        with torch.inference_mode():
            made = play(*given)
            assert made.shape == (count, 256, 256, 3)
            assert int((made.int() - mouths.speak(found, *given).int()).abs().max()) <= mouths.SAME


def test_the_vaes_own_blocks_are_compiled_and_make_diffusers_faces(card: str, weights: Path) -> None:
    engine, published = loaded(weights, card, batch_size=4), models.load(weights, device=card, dtype=torch.float16)
    fused = engine._models["1.5"].fused
    assert fused is not None
    assert fused.ready == len(fused._twins) >= 5
    latents = torch.randn(4, 4, 32, 32, device=card, dtype=torch.float16)
    with torch.inference_mode():
        ours, wanted = (vae.decode(latents).sample.float() for vae in (engine._models["1.5"].vae, published.vae))
    assert float((ours - wanted).abs().mean() / wanted.std()) < 0.01


def test_the_batch_size_is_measured(card: str, weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights, card)
    metrics = run(engine, tmp_path / "o.mp4", clip(tmp_path / "v.mp4", [200] * 4), tone(tmp_path / "a.wav", 0.4))
    assert metrics.extra["batch_size"] >= 4
    assert metrics.peak_vram_mib


def test_preparing_again_and_again_takes_no_more_memory(card: str, weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights, card, batch_size=2)
    reserved = []
    for number in range(6):
        run(
            engine, tmp_path / "o.mp4", clip(tmp_path / f"{number}.mp4", [150 + 10 * number] * 4), tone(tmp_path / "a.wav", 0.4)
        )
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[1]


def test_a_card_that_works_is_not_lost_and_is_new_enough(card: str, weights: Path) -> None:
    assert not loaded(weights, card, batch_size=1).is_lost()
