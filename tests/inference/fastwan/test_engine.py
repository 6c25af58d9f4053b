"""The engine from an image and a prompt to a file."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import nn  # noqa: E402

from errors import Cancelled, EngineFailed, OutOfMemory  # noqa: E402
from inference.engine import Inputs  # noqa: E402
from inference.engines.fastwan import engine as engine_module  # noqa: E402
from inference.engines.fastwan import job, shape, vae  # noqa: E402
from inference.engines.fastwan.decoder import Decoder  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from media import probe  # noqa: E402
from tests.inference.fastwan.runs import ignore, painting, pictures, run  # noqa: E402
from weights.plans import PLANS  # noqa: E402


def apart(first: Path, second: Path) -> float:
    """How much two videos differ on average, of 255."""
    pairs = zip(pictures(first), pictures(second), strict=True)
    return float(np.mean([np.abs(one.astype(int) - other).mean() for one, other in pairs]))


def test_a_job_becomes_a_video_and_says_what_was_really_done(engine: Engine, tmp_path: Path) -> None:
    asked = {"width": 100, "height": 140, "num_frames": 20, "steps": 8, "guidance_scale": 5.0, "negative_prompt": "blur"}
    metrics = run(engine, tmp_path / "o.mp4", painting(tmp_path / "i.png"), **asked, params={"sampler": "unipc"})
    assert (metrics.width, metrics.height, metrics.frames, metrics.fps) == (96, 128, 17, 24.0)
    assert (metrics.extra["steps_used"], metrics.extra["guidance_scale_used"]) == (3, 1.0)
    assert [line.split("=")[0].split(":")[0] for line in metrics.extra["without_effect"]] == [
        "steps",
        "guidance_scale",
        "negative_prompt",
        "params.sampler",
    ]
    found = probe.probe(tmp_path / "o.mp4")
    assert (found.kind, found.width, found.height, found.has_audio) == ("video", 96, 128, False)
    assert len(pictures(tmp_path / "o.mp4")) == 17
    assert set(metrics.stage_times) == {"preprocessing", "inference", "postprocessing"}


def test_one_frame_is_a_video_of_one_frame(engine: Engine, tmp_path: Path) -> None:
    metrics = run(engine, tmp_path / "o.mp4", painting(tmp_path / "i.png"), num_frames=1)
    assert metrics.frames == len(pictures(tmp_path / "o.mp4")) == 1


def test_another_image_makes_another_video(engine: Engine, tmp_path: Path) -> None:
    for number in (0, 1):
        run(engine, tmp_path / f"{number}.mp4", painting(tmp_path / f"{number}.png", seed=number))
    assert apart(tmp_path / "0.mp4", tmp_path / "1.mp4") > 1


def test_another_prompt_makes_another_video(engine: Engine, tmp_path: Path) -> None:
    latents = []
    for prompt in ("a person smiles", "zebras"):
        prepared = engine.prepare(_inputs(painting(tmp_path / "i.png"), prompt=prompt), {}, ignore)
        latents.append(engine._denoised(prepared, lambda _: None, _times()))
    assert not torch.equal(*latents)


def test_the_first_latent_frame_is_the_image(engine: Engine, tmp_path: Path) -> None:
    prepared = engine.prepare(_inputs(painting(tmp_path / "i.png")), {}, ignore)
    latents = engine._denoised(prepared, lambda _: None, _times())
    image = vae.encode(engine._loaded, prepared.picture)
    assert torch.equal(latents[:, :, :1], image)
    assert not torch.equal(latents[:, :, 1:2], image)


def test_without_an_image_the_prompt_alone_makes_the_video(engine: Engine, tmp_path: Path) -> None:
    metrics = run(engine, tmp_path / "o.mp4", None)
    assert metrics.frames == 9


def test_the_same_seed_gives_the_same_file_and_another_seed_another(engine: Engine, tmp_path: Path) -> None:
    image = painting(tmp_path / "i.png")
    for name, seed in (("a", 5), ("b", 5), ("c", -6)):
        run(engine, tmp_path / f"{name}.mp4", image, seed=seed)
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c


def test_a_prompt_is_encoded_once(repository: Path, tmp_path: Path) -> None:
    from inference.engine import Options

    engine = Engine()
    engine.configure(Options(cache_dir=tmp_path / "cache"))
    engine.load(repository, "cpu")
    first, second = (run(engine, tmp_path / "o.mp4", None) for _ in range(2))
    assert (first.extra["prompt_cache"], second.extra["prompt_cache"]) == ("miss", "hit")
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    assert run(engine, tmp_path / "o.mp4", None).extra["prompt_cache"] == "miss"


def test_progress_goes_up_through_steps_and_parts_and_ends_with_encoding(engine: Engine, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    run(engine, tmp_path / "o.mp4", None, progress=lambda *words: said.append(words), num_frames=33)
    shares = [done / total for phase, done, total in said if phase == "inferring"]
    assert shares == sorted(shares)
    assert len(shares) >= 1 + 3 + 3
    assert said[-1] == ("encoding", 33, 33)
    assert shares[-1] == 1


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5])
def test_a_cancel_is_obeyed_within_a_step_or_a_part(engine: Engine, tmp_path: Path, after: int) -> None:
    heard = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "inferring":
            heard.append(done)
            if len(heard) > after:
                raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(engine, tmp_path / "o.mp4", None, progress=progress, num_frames=33)
    assert len(heard) == after + 1
    assert run(engine, tmp_path / "p.mp4", None).frames == 9


class Full(nn.Module):
    """A layer for which the card has no room, so many times."""

    def __init__(self, layer: Any, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Any) -> Any:
        if self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("full")
        return self.layer(x)


@pytest.fixture
def small(repository: Path) -> Engine:
    """An engine with a plan that has smaller ones."""
    engine = Engine()
    engine.load(repository, "cpu")
    engine._use(replace(PLANS[3]))
    return engine


def test_out_of_memory_in_a_step_takes_the_next_smaller_plan(small: Engine, tmp_path: Path) -> None:
    small._loaded.transformer.proj_out = Full(small._loaded.transformer.proj_out, 1)
    metrics = run(small, tmp_path / "o.mp4", None)
    assert (metrics.extra["plan"], metrics.frames) == (PLANS[4].name, 9)


def test_weights_that_are_loaded_anew_are_said_and_hear_a_cancel(small: Engine, tmp_path: Path) -> None:
    said: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "preparing" and "inferring" in said:
            said.append("loading")
            if said.count("loading") > 3:
                raise Cancelled("enough")
        said.append(phase)

    small._loaded.transformer.proj_out = Full(small._loaded.transformer.proj_out, 1)
    with pytest.raises(Cancelled):
        run(small, tmp_path / "o.mp4", None, progress=progress)
    assert said.count("loading") == 4
    said.clear()
    metrics = run(small, tmp_path / "o.mp4", None, progress=progress)  # it loads what the cancelled job had begun to
    assert (metrics.extra["plan"], metrics.frames) == (PLANS[4].name, 9)
    assert said.index("inferring") > 10


def test_a_prompt_that_is_encoded_beside_the_card_after_all_hears_a_cancel(small: Engine) -> None:
    """What was to be encoded on the card when the job was prepared, by a plan that had no room."""
    unheard = job.anything(shape.Shape(width=64, height=64, frames=9))
    with pytest.raises(Cancelled):
        small._denoised(unheard, lambda _: None, job.Times(0), refuse)


def test_who_waits_for_another_ones_prompt_hears_a_cancel(small: Engine) -> None:
    said: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        said.append(phase)
        if len(said) > 3:
            raise Cancelled("enough")

    with small._encoding, pytest.raises(Cancelled):
        run(small, Path("never"), None, progress=progress, prompt="another one")


def refuse() -> None:
    raise Cancelled("enough")


@pytest.mark.slow
def test_some_videos_later_the_plan_of_the_start_is_tried_again(small: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine_module, "STAYS", (2, 3))
    small.warm_up()
    small._stay = 2

    def plans_of(videos: int) -> list[str]:
        return [run(small, tmp_path / "o.mp4", None).extra["plan"] for _ in range(videos)]

    larger, smaller = PLANS[3].name, PLANS[4].name
    for stay in (2, 3, 3):
        small._loaded.transformer.proj_out = Full(small._loaded.transformer.proj_out, 1)
        assert plans_of(1 + stay + 1) == [smaller] * (1 + stay) + [larger]
    assert plans_of(2) == [larger] * 2


def test_out_of_memory_in_decoding_takes_the_next_smaller_plan(small: Engine, tmp_path: Path) -> None:
    first = small._loaded.vae.decoder.mid_block.attentions
    first[0] = Full(first[0], 1)
    metrics = run(small, tmp_path / "o.mp4", None)
    assert (metrics.extra["plan"], metrics.frames) == (PLANS[4].name, 9)


def test_out_of_memory_with_the_smallest_plan_fails_the_job_as_one_to_try_again(small: Engine, tmp_path: Path) -> None:
    small._use(PLANS[-1])
    small._loaded.transformer.proj_out = Full(small._loaded.transformer.proj_out, 1)
    with pytest.raises(OutOfMemory) as caught:
        run(small, tmp_path / "o.mp4", None)
    assert caught.value.retryable
    assert run(small, tmp_path / "o.mp4", None).frames == 9


class Tight(Engine):
    """There is no room for its weights, so many times."""

    refusals = 0
    error: Exception = OutOfMemory("no room")

    def use(self, found: Any, fused: Any = None) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise self.error
        super().use(found, fused)


@pytest.mark.parametrize("error", [OutOfMemory("no room"), torch.OutOfMemoryError("full"), RuntimeError("out of memory")])
def test_weights_that_have_no_room_after_all_are_loaded_by_the_next_smaller_plan(error: Exception, repository: Path) -> None:
    engine = Tight()
    engine.load(repository, "cpu")
    engine.refusals, engine.error = 1, error
    engine._use(PLANS[3])
    assert engine._loaded.plan == PLANS[4]


def test_weights_that_had_no_room_for_one_job_are_loaded_for_the_next(repository: Path, tmp_path: Path) -> None:
    engine = Tight()
    engine.load(repository, "cpu")
    engine._use(PLANS[4])
    engine._loaded.transformer.proj_out = Full(engine._loaded.transformer.proj_out, 1)
    engine.refusals = 1
    with pytest.raises(OutOfMemory):
        run(engine, tmp_path / "o.mp4", None)
    assert run(engine, tmp_path / "o.mp4", None).extra["plan"] == PLANS[5].name


def test_tiles_are_put_together_to_the_whole_picture(engine: Engine) -> None:
    loaded, latents = engine._loaded, 0.3 * torch.randn(1, 48, 2, 40, 4)
    decoder = Decoder(loaded.vae)
    whole, tiled = (np.stack(list(vae.pictures(loaded, decoder, latents, 1, tiles, lambda _: None))) for tiles in (False, True))
    assert whole.shape == tiled.shape == (5, 640, 64, 3)
    rows = np.abs(whole.astype(int) - tiled).mean(axis=(0, 2, 3))
    assert rows[:64].max() < 3  # far from a seam it is the same picture, but for what attention sees beyond the tile
    assert rows.max() < 25


def test_an_answer_that_is_no_number_is_an_error(repository: Path, tmp_path: Path) -> None:
    engine = Engine()
    engine.load(repository, "cpu")
    engine._loaded.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(EngineFailed, match="verify fastwan"):
        run(engine, tmp_path / "o.mp4", None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_jobs_take_no_more_memory_than_twenty(engine: Engine, tmp_path: Path) -> None:
    image, process = painting(tmp_path / "i.png"), psutil.Process()

    def grown_to(jobs: int) -> int:
        for seed in range(jobs):
            run(engine, tmp_path / "o.mp4", image, num_frames=5, seed=seed)
        gc.collect()
        return int(process.memory_info().rss)

    after_20 = grown_to(20)
    assert grown_to(180) < after_20 + 30 * 2**20


def _inputs(image: Path, **fields: Any) -> Inputs:
    return Inputs(image=image, fields={"prompt": "a person", "width": 64, "height": 64, "num_frames": 9, **fields})


def _times() -> Any:
    from inference.engines.fastwan.job import Times

    return Times(0.0)
