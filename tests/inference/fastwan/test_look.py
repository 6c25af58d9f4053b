"""With a codec in the VAE's place that can be understood by eye: the video begins with the image, upright, in its colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from inference.engines.fastwan import shape  # noqa: E402
from inference.engines.fastwan.decoder import Past  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from media import still  # noqa: E402
from tests.inference.fastwan.runs import pictures, run  # noqa: E402

#: A field of so many pixels is one number a colour: 16 fields of a latent pixel, three colours, 48 channels.
FIELD = 4


class Codec:
    """Means of fields instead of a trained VAE: what is encoded can be seen again, in steps of four pixels."""

    config = SimpleNamespace(latents_mean=[0.1] * 48, latents_std=[0.5] * 48)

    def encode(self, pixels: Any) -> Any:
        """(1, 3, 1, h, w) -> something whose mode is (1, 48, 1, h / 16, w / 16)."""
        small = torch.nn.functional.avg_pool2d(pixels[:, :, 0], FIELD)
        found = torch.nn.functional.pixel_unshuffle(small, 16 // FIELD)[:, :, None]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: found))

    def scaled(self, latents: Any) -> Any:
        """As `Decoder.scaled`."""
        return latents * 0.5 + 0.1

    def part(self, latents: Any, past: Past) -> Any:
        """As `Decoder.part`: the first latent frame is one picture, each other one four."""
        times = 1 if past.first else 4
        past.first = False
        small = torch.nn.functional.pixel_shuffle(latents[0].transpose(0, 1), 16 // FIELD)
        large = small.repeat_interleave(FIELD, 2).repeat_interleave(FIELD, 3).repeat_interleave(times, 0)
        return large.transpose(0, 1)[None]


@pytest.fixture
def seeing(repository: Path) -> Engine:
    engine = Engine()
    engine.load(repository, "cpu")
    empty: Any = SimpleNamespace(up_blocks=(), modules=tuple)
    codec: Any = Codec()
    codec.decoder = empty
    engine.use(replace(engine._loaded, vae=codec))
    engine._decoder = codec
    return engine


def test_the_video_begins_with_the_image(seeing: Engine, tmp_path: Path) -> None:
    image = np.full((300, 500, 3), (40, 60, 90), np.uint8)
    cv2.circle(image, (170, 90), 60, (30, 30, 220), -1)  # red, to the upper left, in OpenCV's order of colours
    cv2.rectangle(image, (300, 180), (420, 260), (60, 200, 60), -1)  # green, to the lower right
    cv2.imwrite(str(tmp_path / "i.png"), image)
    run(seeing, tmp_path / "o.mp4", tmp_path / "i.png", width=256, height=192, num_frames=9)
    made = pictures(tmp_path / "o.mp4")
    expected = shape.cover(still.read(tmp_path / "i.png"), 256, 192)
    fields = cv2.resize(
        cv2.resize(expected, (64, 48), interpolation=cv2.INTER_AREA), (256, 192), interpolation=cv2.INTER_NEAREST
    )
    differences = [float(np.abs(picture.astype(int) - fields).mean()) for picture in made]
    assert differences[0] < 8
    assert min(differences[1:]) > 20  # random networks make noise of the rest
    assert np.argmax(made[0][60, 80]) == 0
    assert np.argmax(made[0][140, 190]) == 1
