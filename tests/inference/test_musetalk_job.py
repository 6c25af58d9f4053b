"""MuseTalk from end to end: the program `inference` takes a job to a file, and a pattern painted instead of a mouth shows that
region, mask, blend and timing are right, on our sample and on a real job where there is one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engine import Inputs  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from jobqueue import spool  # noqa: E402
from media import probe, video, write  # noqa: E402
from tests.inference.musetalk.engines import clip, ignore  # noqa: E402
from tests.inference.test_program import Program, running  # noqa: E402
from tests.media import files  # noqa: E402
from tests.patience import until  # noqa: E402

#: The libraries alone take many seconds to import on a busy machine.
LOADS_WITHIN_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "face.mp4"
REAL = ROOT.parent / "shared" / "data" / "yongen.mp4"


def bursts(path: Path, seconds: float) -> Path:
    """Half a second of a tone, half a second of silence, and so on."""
    times = np.arange(round(seconds * 16_000)) / 16_000
    return files.samples(path, np.where(times % 1 < 0.5, 0.5 * np.sin(times * 2000), 0.0))


def bar(picture: np.ndarray, place: tuple[int, int, int, int]) -> float:
    """How long the green bar is, as a share of the box."""
    left, top, right, bottom = place
    height = bottom - top
    row = picture[top + round(208 / 256 * height), left:right].astype(int)
    green = (row[:, 1] > 130) & (row[:, 0] < 120) & (row[:, 2] < 120)
    return float(green.mean())


@pytest.mark.parametrize("source", [SAMPLE, REAL], ids=["sample", "real"])
def test_what_is_painted_is_where_the_mouth_is_when_the_speech_is_loud(painting: Engine, tmp_path: Path, source: Path) -> None:
    if not source.is_file():
        pytest.skip("only our own sample is in the repository")
    parts = []
    for picture, _ in zip(video.pictures(video.open_clip(source)), range(20), strict=False):
        parts.append(picture)
    write.write(tmp_path / "in.mp4", parts, rate=video.open_clip(source).rate, speech=None)
    prepared = painting.prepare(Inputs(video=tmp_path / "in.mp4", audio=bursts(tmp_path / "a.wav", 2.0)), {}, ignore)
    metrics = painting.generate(prepared, tmp_path / "out.mp4", ignore)
    assert (metrics.frames, metrics.extra["frames_without_face"]) == (50, 0)
    made = list(video.pictures(video.open_clip(tmp_path / "out.mp4")))
    before = list(video.pictures(video.open_clip(tmp_path / "in.mp4")))
    bars = []
    for frame, picture in enumerate(made):
        number = frame % 40 if frame % 40 < 20 else 39 - frame % 40
        box = prepared.job.avatar.box(number)
        changed = np.abs(picture.astype(int) - before[number]).max(axis=2) > 60
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert box.x1 - 2 <= columns[0] <= columns[-1] <= box.x2 + 1
        assert box.y1 + 0.35 * box.height <= rows[0] <= rows[-1] <= box.y2 + 1
        assert changed[box.y1 + round(0.6 * box.height) : box.y2 - 8, box.x1 + 8 : box.x2 - 8].mean() > 0.7
        bars.append(bar(picture, (box.x1, box.y1, box.x2, box.y2)))
    moments = np.arange(50) / 25 % 1  # a frame hears from 0.08 s before its moment to 0.12 s after
    assert min(np.array(bars)[moments < 0.5]) > 0.05
    assert max(np.array(bars)[(moments > 0.59) & (moments < 0.87)]) == 0.0


def until_loaded(program: Program) -> None:
    until(lambda: program.control.published().get("inference", {}).get("model_loaded"), LOADS_WITHIN_S)


def test_the_program_takes_a_job_through_the_engine(weights: Path, tmp_path: Path) -> None:
    source = clip(tmp_path / "person.mp4", [200] * 6).read_bytes()
    with running(tmp_path, "musetalk", MODELS_DIR=str(weights), OUTPUT_FIT="source", BATCH_SIZE="2") as program:
        until_loaded(program)
        program.add(video=source)
        job = program.wait("generated", "failed")
        assert job.state == "generated", job.error
        found = probe.probe(spool.output_file(tmp_path, "a"))
        assert (found.kind, found.width, found.height, found.has_audio) == ("video", 128, 128, True)
        numbers = job.result["metrics"]
        assert (numbers["engine"], numbers["frames"], numbers["batch_size"]) == ("musetalk", 12, 2)
        assert numbers["avatar_cache"] == "miss"
        program.add("b", video=source)
        job = program.wait("generated", "failed", job_id="b")
        assert job.state == "generated", job.error
        assert job.result["metrics"]["avatar_cache"] == "hit"
        assert len(list((tmp_path / "cache" / "musetalk").iterdir())) == 1


@pytest.mark.slow
def test_the_older_variables_name_a_unet_that_lies_elsewhere(weights: Path, tmp_path: Path) -> None:
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    shutil.copytree(weights, models)
    shutil.move(models / "musetalkV15", elsewhere)
    variables = {"MODELS_DIR": str(models), "BATCH_SIZE": "2", "MUSETALK_UNET_MODEL_PATH": str(elsewhere / "unet.pth")}
    with running(tmp_path, "musetalk", **variables) as program:
        until_loaded(program)
        program.add("a", video=clip(tmp_path / "a.mp4", [200] * 4).read_bytes())
        job = program.wait("generated", "failed")
        assert job.state == "generated", job.error
        assert job.result["metrics"]["engine"] == "musetalk"


@pytest.mark.slow
def test_a_unet_that_is_not_where_the_older_variable_says_is_named(weights: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pth"
    variables = {
        "MODELS_DIR": str(weights),
        "MUSETALK_UNET_MODEL_PATH": str(gone),
        "ORCHESTRATOR_BASE_URL": "http://127.0.0.1:9",
    }
    with running(tmp_path, "musetalk", **variables) as program:
        reason = until(lambda: program.control.flag("unfit"), LOADS_WITHIN_S)["reason"]
    assert str(gone) in reason
    assert "MUSETALK_UNET_MODEL_PATH" in reason
