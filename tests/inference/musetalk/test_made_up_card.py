"""The engine on a card that is not there: every line that only a card runs is run, and gives what the processor gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

if torch.cuda.is_available():
    pytest.skip("there is a real card: tests/gpu", allow_module_level=True)

from errors import OutOfMemory  # noqa: E402
from inference.engine import Inputs, Metrics  # noqa: E402
from inference.engines.musetalk import mouths, stream  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from inference.engines.musetalk.room import Room  # noqa: E402
from inference.engines.musetalk.stream import Job  # noqa: E402
from media import video  # noqa: E402
from tests.inference.musetalk.engines import another_card, ignore, loaded, pictures, tone, waves  # noqa: E402

#: Frames of the clip, and those that are too dark for a face.
FRAMES, DARK = 3, (1,)
BATCH = 2


@dataclass
class Done:
    """A job that an engine has done; while it was prepared and made, the host waited so often for the card."""

    job: Job
    metrics: Metrics
    pictures: Any
    preparing: list[str]
    making: list[str]


@pytest.fixture(scope="module")
def card() -> Iterator[Any]:
    with another_card() as found:
        yield found


@pytest.fixture(scope="module")
def on_card(card: Any, weights: Path) -> Engine:
    engine = loaded(weights, "cuda:0", batch_size=BATCH, compile="off")
    engine._looking = Room(FRAMES)
    return engine


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    levels = [0.1 if number in DARK else 1.0 for number in range(FRAMES)]
    return Inputs(video=waves(folder / "v.mp4", levels), audio=tone(folder / "a.wav", FRAMES / 25))


@pytest.fixture(scope="module")
def done(card: Any, on_card: Engine, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return do(card, on_card, inputs, tmp_path_factory.mktemp("card"))


def do(card: Any, engine: Engine, inputs: Inputs, folder: Path) -> Done:
    card.waits.clear()
    prepared = engine.prepare(inputs, {"smooth": False}, ignore)
    preparing = list(card.waits)
    card.waits.clear()
    metrics = engine.generate(prepared, folder / "o.mp4", ignore)
    return Done(prepared.job, metrics, np.stack(pictures(folder / "o.mp4")).astype(int), preparing, list(card.waits))


def test_a_person_is_seen_and_speaks_as_on_a_processor(
    card: Any, done: Done, weights: Path, inputs: Inputs, tmp_path: Path
) -> None:
    expected = do(card, loaded(weights, batch_size=BATCH), inputs, tmp_path)
    found, wanted = done.job.avatar, expected.job.avatar
    assert np.array_equal(found.boxes, wanted.boxes)
    assert np.array_equal(found.masks, wanted.masks)
    assert np.abs(found.latents - wanted.latents).max() < 0.01
    assert (done.metrics.frames, done.metrics.extra["frames_without_face"]) == (FRAMES, len(DARK))
    assert np.abs(done.pictures - expected.pictures).mean() < 2
    assert done.metrics.peak_vram_mib
    assert card.time.complaints == []


def test_the_host_waits_for_what_is_heard_and_then_for_finished_frames_only(done: Done) -> None:
    assert done.making == ["a copy from pageable memory"] * 2  # half a minute of speech, and the filters that it is heard with


def test_looking_at_a_batch_costs_the_same_few_waits_however_many_pictures_it_has(done: Done) -> None:
    faces, points, latents, masks = 3, 2, 1, FRAMES - len(DARK)  # each mask, but all are begun when the first is waited for
    assert len(done.preparing) == faces + points + latents + masks


@pytest.mark.parametrize("count", [BATCH, 1, BATCH + 1], ids=["as recorded", "less", "more"])
def test_a_recording_plays_what_runs_live_for_any_number_of_pictures(on_card: Engine, count: int) -> None:
    found = on_card._models["1.5"]
    with torch.inference_mode():
        given = mouths._anything(found, count)
        apart = on_card._speak["1.5"](*given).cpu().int() - mouths.speak(found, *given).cpu().int()
    assert apart.shape == (count, 256, 256, 3)
    assert int(apart.abs().max()) <= mouths.SAME


def test_speech_of_a_few_samples_is_one_frame(card: Any, on_card: Engine, inputs: Inputs, tmp_path: Path) -> None:
    """Too few for a single one at 16 kHz, so that nothing of it comes to the card."""
    short = replace(inputs, audio=tone(tmp_path / "a.wav", 4 / 48_000, rate_hz=48_000))
    assert len(do(card, on_card, short, tmp_path).pictures) == 1


@pytest.mark.slow
def test_what_cannot_be_recorded_runs_live_and_the_rest_is_recorded(on_card: Engine, caplog: pytest.LogCaptureFixture) -> None:
    found = on_card._models["1.5"]

    def looks_at_two(latents: Any, heard: Any) -> Any:
        assert len(latents) == 1 or latents.sum().item()  # which makes the host wait, as nobody may in a capture
        return found.unet(latents, heard)

    networks: Any = {"unet": looks_at_two}
    play = mouths.recorded(replace(found, **networks), 2)
    said = [record.message for record in caplog.records if "could not be captured" in record.message]
    assert [words[:12] for words in said] == ["batches of 2"]
    with torch.inference_mode():
        assert [len(play(*mouths._anything(found, count))) for count in (2, 1)] == [2, 1]


def test_where_not_even_the_pictures_fit_the_next_attempt_has_half_as_many(card: Any, on_card: Engine, inputs: Inputs) -> None:
    before, card.total_bytes = card.total_bytes, card.used_bytes + 10**5
    try:
        with pytest.raises(OutOfMemory, match="the GPU ran out of memory"):
            on_card.prepare(inputs, {}, ignore)
        assert on_card._looking.size == FRAMES // 2
    finally:
        card.total_bytes, on_card._looking = before, Room(FRAMES)


def test_groups_of_large_pictures_are_as_large_as_a_recording(inputs: Inputs) -> None:
    assert inputs.video is not None
    clip = replace(video.open_clip(inputs.video), width=3840, height=2160)
    assert [stream._group_size(Room(size), clip) for size in (1, 4, 20, 32)] == [1, 4, 5, 8]
