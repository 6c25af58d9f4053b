"""What is kept of a video's pictures: shown without decoding again, as if it were the whole picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from inference.engines.musetalk import build, masks  # noqa: E402
from inference.engines.musetalk.avatar import Avatar, Maker  # noqa: E402
from inference.engines.musetalk.boxes import Box  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from inference.engines.musetalk.params import Params  # noqa: E402
from inference.engines.musetalk.pictures import Pictures, View  # noqa: E402
from inference.engines.musetalk.room import Room  # noqa: E402
from media import video  # noqa: E402
from media.still import Picture  # noqa: E402
from tests.inference.musetalk.engines import clip  # noqa: E402

PART, WITHIN, WIDER = Box(20, 30, 80, 100), Box(25, 30, 70, 90), Box(20, 30, 81, 100)


def read(path: Path, kept_bytes: int, parts: dict[int, Box]) -> tuple[Pictures, list[Picture]]:
    """The pictures of a video, read once, with these parts of them kept; and the whole pictures."""
    pictures = Pictures(video.open_clip(path), 100, torch.device("cpu"), lambda: None, kept_bytes)
    whole: list[Picture] = []
    for batch in pictures.batches(2):
        assert batch.first == len(whole)
        assert np.array_equal(batch.seen.numpy(), np.stack(batch.pictures))
        whole += batch.pictures
    for number, part in parts.items():
        pictures.keep(number, whole[number], part)
    return pictures, whole


def test_what_was_kept_is_shown_without_the_file(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", [20, 90, 160, 230])
    pictures, whole = read(path, 10**6, {0: PART, 2: Box(-50, 100, 60, 300), 3: PART})
    path.unlink()
    views = [view for some in pictures.views([WITHIN, None, Box(-40, 110, 50, 290), PART], 3) for view in some]
    assert len(views) == 4
    assert views[1] is None
    for number, corner in ((0, (20, 30)), (2, (0, 100)), (3, (20, 30))):
        view = views[number]
        assert view is not None
        assert (view.x, view.y) == corner
        height, width = view.pixels.shape[:2]
        assert np.array_equal(view.pixels, whole[number][view.y : view.y + height, view.x : view.x + width])


@pytest.mark.parametrize(
    ("kept_bytes", "wanted"),
    [(10**6, [WITHIN, WIDER, None]), (10**6, [WITHIN, None, WITHIN]), (2 * 60 * 70 * 3 - 1, [WITHIN, None, None])],
    ids=["less was kept", "nothing was kept of one", "there was no room"],
)
def test_what_was_not_kept_is_decoded_again(tmp_path: Path, kept_bytes: int, wanted: list[Box | None]) -> None:
    pictures, whole = read(clip(tmp_path / "a.mp4", [20, 90, 160]), kept_bytes, {0: PART, 1: PART})
    views = [view for some in pictures.views(wanted, 2) for view in some]
    for view, picture in zip(views, whole, strict=True):
        assert view is not None
        assert (view.x, view.y) == (0, 0)
        assert np.array_equal(view.pixels, picture)


@pytest.mark.parametrize("box", [Box(100, 60, 180, 150), Box(-6, 10, 60, 90), Box(250, 150, 310, 206)])
def test_an_avatar_of_parts_is_that_of_whole_pictures(engine: Engine, box: Box) -> None:
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    part = masks.square(box).cut(300, 200)
    made: list[Avatar] = []
    for view in (View(0, 0, picture), View(part.x1, part.y1, picture[part.y1 : part.y2, part.x1 : part.x2])):
        maker = Maker()
        with torch.inference_mode():
            build.add(maker, [view, None], [box, None], (300, 200), engine._models["1.5"], Params(), Room(2), None)
        made.append(maker.made(whole=True))
    assert made[0].has_face(0)
    for name in ("boxes", "latents", "places", "masks", "ends"):
        assert np.array_equal(getattr(made[0], name), getattr(made[1], name)), name
