"""The whole engine on small random weights: from a person's video and speech to the finished file."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from errors import Cancelled, EngineFailed, InvalidInput, OutOfMemory  # noqa: E402
from inference.engine import Engine as Plug  # noqa: E402
from inference.engine import Inputs  # noqa: E402
from inference.engines.musetalk import models, mouths, trial  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from inference.engines.musetalk.room import Room  # noqa: E402
from media.probe import probe  # noqa: E402
from tests.inference.musetalk.engines import Say, changed, clip, ignore, levels, loaded, pictures, run, tone, use  # noqa: E402


def test_a_job_becomes_a_video_of_the_speechs_length_with_a_new_face_in_it(say: Say, tmp_path: Path) -> None:
    path, metrics = say(clip(tmp_path / "a.mp4", [200] * 6), tone(tmp_path / "a.wav", 0.4))
    assert (metrics.frames, metrics.fps, metrics.width, metrics.height) == (10, 25.0, 128, 128)
    assert set(metrics.stage_times) == {"preprocessing", "inference", "postprocessing"}
    assert min(metrics.stage_times.values()) > 0
    assert (metrics.extra["frames_without_face"], metrics.extra["avatar_cache"]) == (0, "miss")
    made = pictures(path)
    assert len(made) == 10
    assert all(changed(picture) for picture in made)


def test_pictures_without_a_face_pass_through_and_are_counted(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200] * 3 + [20] * 14 + [200] * 3)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.8), {"smooth": False})
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (20, 14)
    assert [changed(picture) for picture in pictures(path)] == [True] * 3 + [False] * 14 + [True] * 3


def test_a_video_without_a_face_is_refused_with_what_was_looked_at(say: Say, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no face found.*all 20 frames from 0.00 s to 0.76 s") as raised:
        say(clip(tmp_path / "a.mp4", [20] * 20), tone(tmp_path / "a.wav", 0.4))
    assert raised.value.stage == "preprocessing"


def background(seen: Any) -> Any:
    """A parser that takes nothing for a face."""
    return torch.eye(19)[0].view(1, 19, 1, 1).expand(len(seen), -1, 512, 512)


def test_a_job_in_which_no_mouth_would_move_is_refused_with_why(weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights)
    use(engine, parser=background)
    source = clip(tmp_path / "a.mp4", [200] * 3 + [20] * 7)
    with pytest.raises(InvalidInput) as refused:
        run(engine, tmp_path / "out.mp4", source, tone(tmp_path / "a.wav", 0.2), {"smooth": False})
    why = "2 have no face and 3 have a face without skin or lips in its lower half"
    assert refused.value.message == f"no mouth can be moved: of the first 5 frames (all that the speech needs), {why}"


def test_a_face_that_comes_after_the_speech_moves_no_mouth(engine: Engine, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [20] * 7 + [200] * 3)
    with pytest.raises(InvalidInput, match=r"of the first 5 frames .* 5 have no face and 0 have a face"):
        engine.prepare(Inputs(video=source, audio=tone(tmp_path / "a.wav", 0.2)), {"smooth": False}, ignore)
    assert engine.prepare(Inputs(video=source, audio=tone(tmp_path / "b.wav", 0.4)), {"smooth": False}, ignore)


@pytest.mark.parametrize(
    ("loop", "expected"),
    [("loop", [150, 180, 210, 210, 180, 150, 150, 180]), ("hold", [150, 180, *[210] * 6]), ("cut", [150, 180, 210])],
)
def test_speech_longer_than_the_video_loops_holds_or_is_cut(say: Say, tmp_path: Path, loop: str, expected: list[int]) -> None:
    path, _ = say(clip(tmp_path / "a.mp4", [150, 180, 210]), tone(tmp_path / "a.wav", 0.32), {"loop": loop})
    assert levels(path) == pytest.approx(expected, abs=3)
    assert all(changed(picture) for picture in pictures(path))


def test_what_is_cut_ends_with_its_pictures_and_its_sound(say: Say, tmp_path: Path) -> None:
    path, _ = say(clip(tmp_path / "a.mp4", [150, 180, 210]), tone(tmp_path / "a.wav", 5.0), {"loop": "cut"})
    length_s = probe(path).audio_duration_s
    assert length_s is not None
    assert 0.12 <= length_s <= 0.4


def test_a_video_longer_than_the_speech_is_cut_to_it(say: Say, tmp_path: Path) -> None:
    path, metrics = say(clip(tmp_path / "a.mp4", list(range(150, 250, 5))), tone(tmp_path / "a.wav", 0.16))
    assert metrics.frames == 4
    assert levels(path) == pytest.approx([150, 155, 160, 165], abs=3)


@pytest.mark.parametrize("known", [False, True])
def test_the_rest_of_a_longer_video_plays_on_unchanged_if_asked_for(weights: Path, tmp_path: Path, known: bool) -> None:
    engine, path = loaded(weights, cache_dir=tmp_path / "avatars", cache_bytes=(1 << 30) * known), tmp_path / "out.mp4"
    source, speech = clip(tmp_path / "a.mp4", list(range(150, 250, 5))), tone(tmp_path / "a.wav", 0.28)
    for _ in range(1 + known):
        metrics = run(engine, path, source, speech, {"tail": "keep"})
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (20, 0)
    assert levels(path) == pytest.approx(range(150, 250, 5), abs=3)
    assert [changed(picture) for picture in pictures(path)] == [True] * 7 + [False] * 13
    sound_s = probe(path).audio_duration_s
    assert sound_s is not None
    assert sound_s < 0.45


def test_the_rest_is_played_to_its_end_also_where_only_a_part_was_looked_at(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.engines.musetalk.engine.MIN_S", Fraction(1, 5))
    source, path = clip(tmp_path / "a.mp4", list(range(145, 245, 2))), tmp_path / "out.mp4"
    metrics = run(engine, path, source, tone(tmp_path / "a.wav", 0.2), {"tail": "keep"})
    assert metrics.frames == 50
    assert [changed(picture) for picture in pictures(path)] == [True] * 5 + [False] * 45


def test_the_rest_is_played_whatever_its_length_was_believed_to_be(engine: Engine, tmp_path: Path) -> None:
    source, path = clip(tmp_path / "a.mp4", list(range(150, 250, 5))), tmp_path / "out.mp4"
    prepared = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "a.wav", 0.28)), {"tail": "keep"}, ignore)
    prepared = replace(prepared, job=replace(prepared.job, frames=prepared.job.spoken))
    assert engine.generate(prepared, path, ignore).frames == 20


def test_a_speech_longer_than_the_video_leaves_no_rest(say: Say, tmp_path: Path) -> None:
    path, _ = say(clip(tmp_path / "a.mp4", [150, 180, 210]), tone(tmp_path / "a.wav", 0.32), {"tail": "keep"})
    assert levels(path) == pytest.approx([150, 180, 210, 210, 180, 150, 150, 180], abs=3)


def test_a_video_without_a_face_gets_the_speech_as_its_sound_if_asked_for(say: Say, tmp_path: Path) -> None:
    source, speech = clip(tmp_path / "a.mp4", [20] * 10), tone(tmp_path / "a.wav", 0.4)
    path, metrics = say(source, speech, {"no_face": "pass"})
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (10, 10)
    assert not any(changed(picture) for picture in pictures(path))
    assert probe(path).audio_duration_s is not None
    with pytest.raises(InvalidInput, match=r"no face found|have no face"):
        say(source, speech)


@pytest.mark.parametrize("loop", ["loop", "hold", "cut"])
def test_a_still_is_looked_at_once_and_lasts_as_long_as_the_speech(weights: Path, tmp_path: Path, loop: str) -> None:
    import cv2

    engine, looked = loaded(weights), []
    detector = engine._models["1.5"].detector

    def counted(seen: Any) -> Any:
        looked.append(len(seen))
        return detector(seen)

    use(engine, detector=counted)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((129, 131, 3), 200, np.uint8))
    metrics = run(engine, tmp_path / "out.mp4", tmp_path / "a.png", tone(tmp_path / "a.wav", 0.4), {"loop": loop})
    assert (metrics.frames, metrics.fps, looked) == (10, 25.0, [1])
    assert (metrics.width, metrics.height) == (132, 130)
    assert all(changed(picture) for picture in pictures(tmp_path / "out.mp4"))


def test_the_mouth_is_still_in_silence(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200])
    made = pictures(say(source, tone(tmp_path / "a.wav", 0.4, loud=()))[0])
    assert max(np.abs(made[0].astype(int) - picture).mean() for picture in made) < 1
    heard = pictures(say(source, tone(tmp_path / "b.wav", 0.4, loud=()), {"parity": True})[0])
    assert len(heard) == len(made) == 10


def test_a_known_video_is_not_looked_at_again(weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights, batch_size=3, cache_dir=tmp_path / "avatars", cache_bytes=1 << 24)
    source, speech = clip(tmp_path / "a.mp4", [200] * 6), tone(tmp_path / "a.wav", 0.4)
    met = [run(engine, tmp_path / f"{number}.mp4", source, speech).extra for number in range(2)]
    assert [extra["avatar_cache"] for extra in met] == ["miss", "hit"]
    assert [extra["batch_size"] for extra in met] == [3, 3]
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


@pytest.mark.slow
def test_no_more_of_a_video_is_looked_at_than_speech_may_soon_need(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = loaded(weights, cache_dir=tmp_path / "avatars", cache_bytes=1 << 26)
    source = clip(tmp_path / "a.mp4", [200] * 21, rate=1)
    prepared = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "a.wav", 2.0)), {}, ignore)
    assert (len(prepared.job.avatar), prepared.job.avatar.whole, prepared.job.frames) == (10, False, 2)
    again = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "b.wav", 11.0)), {}, ignore)
    assert (len(again.job.avatar), again.cached, again.job.frames) == (20, False, 11)
    last = engine.prepare(Inputs(video=source, audio=tone(tmp_path / "c.wav", 35.0)), {}, ignore)
    assert (len(last.job.avatar), last.job.avatar.whole, last.job.frames) == (21, True, 35)
    assert engine.prepare(Inputs(video=source, audio=tone(tmp_path / "d.wav", 40.0)), {}, ignore).cached


def test_out_of_memory_halves_the_batch_and_goes_on_in_the_same_job(weights: Path, tmp_path: Path) -> None:
    engine, tried = loaded(weights, batch_size=8), []
    decode = engine._models["1.5"].vae.decode

    class Small:
        config, encode = engine._models["1.5"].vae.config, engine._models["1.5"].vae.encode

        def decode(self, latents: Any) -> Any:
            tried.append(len(latents))
            if len(latents) > 2:
                raise torch.OutOfMemoryError("no room")
            return decode(latents)

    use(engine, vae=Small())
    metrics = run(engine, tmp_path / "out.mp4", clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.4))
    assert (metrics.frames, metrics.extra["batch_size"]) == (10, 2)
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert all(changed(picture) for picture in pictures(tmp_path / "out.mp4"))


def test_out_of_memory_with_one_picture_is_the_end(weights: Path, tmp_path: Path) -> None:
    engine = loaded(weights, batch_size=2)

    def never(latents: Any, heard: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    use(engine, unet=never)
    with pytest.raises(OutOfMemory, match="not have enough free memory for a single frame"):
        run(engine, tmp_path / "out.mp4", clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.4))


@pytest.mark.parametrize("phase", ["preparing", "inferring"])
def test_cancel_ends_a_job_and_all_of_its_threads(engine: Engine, tmp_path: Path, phase: str) -> None:
    def cancel(now: str, done: int, total: int) -> None:
        if now == phase and done > 2:
            raise Cancelled("enough")

    inputs = Inputs(video=clip(tmp_path / "a.mp4", [200] * 10), audio=tone(tmp_path / "a.wav", 2.0))
    with pytest.raises(Cancelled):
        engine.generate(engine.prepare(inputs, {}, cancel), tmp_path / "out.mp4", cancel)
    assert threads() == []


def test_an_error_that_somebody_keeps_keeps_no_thread(engine: Engine, weights: Path, tmp_path: Path) -> None:
    inputs = Inputs(video=clip(tmp_path / "a.mp4", [200] * 10), audio=tone(tmp_path / "a.wav", 2.0))
    prepared = engine.prepare(inputs, {}, ignore)
    with pytest.raises(FileNotFoundError) as kept:
        engine.generate(prepared, tmp_path / "gone" / "out.mp4", ignore)
    assert threads() == []
    broken = loaded(weights, batch_size=2)
    use(broken, detector=lambda seen: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept_too:
        broken.prepare(inputs, {}, ignore)
    assert threads() == []
    del kept, kept_too  # not before


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "networks"))]


def test_an_error_in_any_thread_ends_the_job_with_that_error(weights: Path, tmp_path: Path) -> None:
    engine, calls = loaded(weights, batch_size=2), []

    def breaks(latents: Any, heard: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return latents[:, :4]

    use(engine, unet=breaks)
    with pytest.raises(RuntimeError, match="illegal memory"):
        run(engine, tmp_path / "out.mp4", clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 1.0))
    assert threads() == []


def test_a_job_may_be_prepared_while_another_is_made(engine: Engine, tmp_path: Path) -> None:
    one, other = clip(tmp_path / "a.mp4", [200] * 5), clip(tmp_path / "b.mp4", [160] * 5)
    speech = tone(tmp_path / "a.wav", 0.4)
    alone = run(engine, tmp_path / "alone.mp4", one, speech)
    prepared = engine.prepare(Inputs(video=one, audio=speech), {}, ignore)
    beside: list[Any] = []
    thread = threading.Thread(target=lambda: beside.append(engine.prepare(Inputs(video=other, audio=speech), {}, ignore)))
    thread.start()
    metrics = engine.generate(prepared, tmp_path / "out.mp4", ignore)
    thread.join()
    assert metrics.frames == alone.frames
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert engine.generate(beside[0], tmp_path / "other.mp4", ignore).frames == 10


@pytest.mark.parametrize(
    ("fit", "size", "bars"), [("pad", (64, 114), True), ("crop", (64, 114), False), ("source", (128, 128), False)]
)
def test_the_jobs_shape_is_honoured_where_it_is_asked_for(
    say: Say, tmp_path: Path, fit: str, size: tuple[int, int], bars: bool
) -> None:
    source, speech = clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.1)
    path, metrics = say(source, speech, {"fit": fit}, aspect_ratio="9:16", resolution="114x114")
    assert (metrics.width, metrics.height) == size
    assert (float(pictures(path)[0][:10].mean()) < 5) == bars


def test_parity_runs_the_published_way(say: Say, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [200] * 2 + [20] * 2 + [200] * 2)
    path, metrics = say(source, tone(tmp_path / "a.wav", 0.24), {"parity": True})
    assert metrics.extra["frames_without_face"] == 2
    assert [changed(picture) for picture in pictures(path)] == [True] * 2 + [False] * 2 + [True] * 2


def test_version_1_0_is_loaded_beside_1_5_and_each_job_chooses(weights: Path, tmp_path: Path) -> None:
    from tests.fakes import checkpoints

    both = Path(shutil.copytree(weights, tmp_path / "models"))
    torch.manual_seed(1)
    checkpoints.write_unet(both, "1.0")
    engine = loaded(both)
    assert set(engine._models) == {"1.5", "1.0"}
    assert engine._models["1.5"].vae is engine._models["1.0"].vae
    source, speech = clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.2)
    made = []
    for version in ("1.5", "1.0"):
        run(engine, tmp_path / "out.mp4", source, speech, {"version": version})
        made.append(pictures(tmp_path / "out.mp4")[0])
    assert np.abs(made[0].astype(int) - made[1]).max() > 30


def test_a_version_that_is_not_there_is_said(say: Say, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"MuseTalk 1.0 are not installed here; installed: 1.5"):
        say(clip(tmp_path / "a.mp4", [200]), tone(tmp_path / "a.wav", 0.2), {"version": "1.0"})


def test_weights_are_missing_until_one_version_is_whole(weights: Path, tmp_path: Path) -> None:
    plug: type[Plug] = Engine
    assert plug().name == "musetalk"
    assert "musetalkV15/unet.pth" in Engine.missing(tmp_path)[0]
    assert Engine.missing(weights) == []


def test_the_made_up_job_of_the_warm_up_goes_through_everything(engine: Engine) -> None:
    looking = Room(2)
    trial.run(engine._models["1.5"], engine._speak["1.5"], looking, Room(2))
    assert looking.size == 2


def test_no_kernels_are_searched_for_in_a_job(engine: Engine) -> None:
    engine.warm_up()
    assert not torch.backends.cudnn.benchmark


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
def test_on_a_card_a_recording_makes_the_same_faces(weights: Path) -> None:
    found = models.load(weights, "1.5", "cuda:0", torch.float16)
    assert 1 <= mouths.measured(found) <= mouths.MAX_BATCH
    play = mouths.recorded(found, 4)
    latents, heard = torch.randn(4, 8, 32, 32), torch.randn(4, 50, 384, device="cuda:0")
    with torch.inference_mode():
        apart = (play(latents, heard).int() - mouths.speak(found, latents, heard).int()).abs()
    assert int(apart.max()) <= mouths.SAME
    assert play.__name__ == "play"
