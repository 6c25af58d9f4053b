"""What is made of a picture and of speech, parameter by parameter, against the published formulas written once more by hand and
the libraries' own networks: here it shows if one of them is no longer asked."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from inference.engines.musetalk import build, landmarks, mouths, params, silence, sound, speech  # noqa: E402
from inference.engines.musetalk.avatar import Avatar  # noqa: E402
from inference.engines.musetalk.boxes import Box  # noqa: E402
from inference.engines.musetalk.engine import Engine  # noqa: E402
from inference.engines.musetalk.room import Room  # noqa: E402
from media import audio, video  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402
from tests.inference.musetalk.engines import tone  # noqa: E402
from tests.inference.musetalk.test_masks import a_face, jaw  # noqa: E402

#: A picture with a face in it, and where the face finder sees it: left, top, right, bottom.
WIDTH, HEIGHT, FOUND = 200, 240, (72, 72, 136, 136)
SCALE = 0.18215


def a_picture() -> NDArray[np.uint8]:
    """Soft blobs, each channel others: one turned or taken for another shows."""
    noise = np.random.default_rng(7).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    noise[..., 2] //= 3
    return np.asarray(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def finder(pictures: Any) -> Any:
    """Answers as S3FD does with the one face: of 64 pixels in the seventh row and column of cells of 16."""
    answers = []
    for cell in (4, 8, 16, 32, 64, 128):
        shape = (len(pictures), 1, HEIGHT // cell + 1, WIDTH // cell + 1)
        logits = torch.cat([torch.full(shape, 9.0), torch.full(shape, -9.0)], 1)
        if cell == 16:
            logits[:, 1, 6, 6] = 30.0
        answers.append((logits, torch.zeros(len(pictures), 4, *shape[2:])))
    return answers


def parser(seen: Any) -> Any:
    """Sees a face with everything in it, whatever it is shown."""
    return (
        torch.nn.functional.one_hot(torch.from_numpy(a_face()).long(), 19)
        .permute(2, 0, 1)
        .float()
        .expand(len(seen), -1, -1, -1)
    )


def avatar(engine: Engine, folder: Path, said: dict[str, Any]) -> Avatar:
    cv2.imwrite(str(folder / "a.png"), cv2.cvtColor(a_picture(), cv2.COLOR_RGB2BGR))
    networks: dict[str, Any] = {"detector": finder, "parser": parser}
    models = replace(engine._models["1.5"], **networks)
    clip = video.open_clip(folder / "a.png")
    return build.build(clip, 1, models, params.read(said), Room(2), lambda done, total: None)


def box_of(engine: Engine, shift: int, margin: int, parity: bool) -> Box:
    """As high above the nose's point as the chin is below, as wide as the points, the margin below."""
    left, top, right, _ = FOUND
    side = right - left
    person = [left - side, top - 0.75 * side, right + side, top + 3.25 * side]
    region = [0, 0, WIDTH, HEIGHT] if parity else person
    shown = torch.from_numpy(a_picture())[None]
    points = landmarks.locate(engine._models["1.5"].pose, shown, np.array([region], float))[0, 23:91, :2]
    if parity:
        points = points.astype(np.int32)
    x, y, nose = points[:, 0], points[:, 1], points[29, 1] + shift
    x1, y1, x2, y2 = (round(float(edge)) for edge in (x.min(), 2 * nose - y.max(), x.max(), y.max()))
    return Box(x1, y1, x2, y2 + margin)


def mask_of(part: NDArray[np.bool_], box: Box) -> tuple[int, int, NDArray[np.uint8]]:
    """Left, top and alpha, as the published pipeline blends: by Pillow and OpenCV on the whole square."""
    x, y = (box.x1 + box.x2) // 2, (box.y1 + box.y2) // 2
    half = int(max(box.width, box.height) // 2 * 1.5)
    left, top = x - half, y - half
    own = np.s_[box.y1 - top : box.y2 - top, box.x1 - left : box.x2 - left]
    resized = np.asarray(Image.fromarray(part.astype(np.uint8) * 255).resize((2 * half, 2 * half)))
    kept, inside = np.zeros_like(resized), np.zeros_like(resized)
    kept[own], inside[own] = resized[own], 1
    kept[:half] = 0
    blur = int(0.05 * 2 * half // 2 * 2) + 1
    alpha = cv2.GaussianBlur(kept, (blur, blur), 0) * inside
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    part_ = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return left + int(columns[0]), top + int(rows[0]), np.asarray(part_, np.uint8)


@pytest.fixture(scope="module")
def published_vae(weights: Path) -> Any:
    return diffusers.AutoencoderKL.from_pretrained(weights / "sd-vae", use_safetensors=False).eval()


def latents_of(vae: Any, box: Box, parity: bool) -> Any:
    """The half-black one's before the whole one's, times the scale: their mean, or a sample with a seed."""
    crop = cv2.resize(a_picture()[box.y1 : box.y2, box.x1 : box.x2], (256, 256), interpolation=cv2.INTER_LANCZOS4)
    whole = crop.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    masked = whole.copy()
    masked[:, 128:] = -1
    with torch.inference_mode():
        found = vae.encode(torch.from_numpy(np.stack([masked, whole]))).latent_dist
        both = found.sample(torch.Generator().manual_seed(build.SEED)) if parity else found.mean
    return (both * SCALE).reshape(8, 32, 32).numpy()


JAW, RAW = jaw(a_face(), 90, 90), np.isin(a_face(), [1, 11, 12, 13])


@pytest.mark.parametrize(
    ("said", "shift", "margin", "part"),
    [
        ({}, 0, 10, JAW),
        ({"bbox_shift": 6}, 6, 10, JAW),
        ({"bbox_shift": -5}, -5, 10, JAW),
        ({"extra_margin": 23}, 0, 23, JAW),
        ({"parsing_mode": "raw"}, 0, 10, RAW),
        ({"parsing_mode": "neck"}, 0, 10, np.isin(a_face(), [1, 11, 12, 13, 14])),
        ({"left_cheek_width": 140}, 0, 10, jaw(a_face(), 140, 90)),
        ({"right_cheek_width": 140}, 0, 10, jaw(a_face(), 90, 140)),
        ({"version": "1.0"}, 0, 0, RAW),
        ({"parity": True}, 0, 10, JAW),
        ({"parity": True, "version": "1.0", "bbox_shift": 4}, 4, 0, RAW),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_an_avatar_is_the_published_formulas_for_each_parameter(
    engine: Engine, published_vae: Any, tmp_path: Path, said: dict[str, Any], shift: int, margin: int, part: NDArray[np.bool_]
) -> None:
    made, parity = avatar(engine, tmp_path, said), said.get("parity", False)
    box = box_of(engine, shift, margin, parity)
    assert made.box(0) == box
    wanted = latents_of(published_vae, box, parity)
    assert np.abs(made.latents[0] - wanted).max() < 4e-3 * max(1.0, np.abs(wanted).max())
    x, y, alpha = mask_of(part, box)
    mask = made.mask(0)
    assert (mask.x, mask.y, mask.alpha.shape) == (x, y, alpha.shape)
    assert np.array_equal(mask.alpha, alpha)


def test_a_mouth_is_diffusers_unet_and_vae_with_the_places_added(engine: Engine, published_vae: Any, weights: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_config(checkpoints.UNET).eval()
    unet.load_state_dict(torch.load(weights / "musetalkV15" / "unet.pth"))
    seeded = torch.Generator().manual_seed(3)
    latents, heard = torch.randn(2, 8, 32, 32, generator=seeded), torch.randn(2, 50, 384, generator=seeded)
    angles = np.arange(50)[:, None] * np.exp(np.arange(0, 384, 2) * (-math.log(10_000) / 384))
    places = np.stack([np.sin(angles), np.cos(angles)], 2).reshape(50, 384).astype(np.float32)
    with torch.inference_mode():
        made = mouths.speak(engine._models["1.5"], latents, heard)
        moved = unet(latents, torch.tensor([0]), encoder_hidden_states=heard + torch.from_numpy(places)).sample
        shown = (published_vae.decode(moved / SCALE).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    wanted = (shown * 255).round().astype(np.uint8)
    assert made.dtype == torch.uint8
    apart = np.abs(made.numpy().astype(int) - wanted)
    assert apart.max() <= 1
    assert apart.mean() < 0.01
    assert wanted.std() > 10


@pytest.mark.parametrize(
    ("said", "as_trained"),
    [({}, False), ({"parity": True}, False), ({"version": "1.0"}, True), ({"version": "1.0", "parity": True}, False)],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_only_version_1_0_hears_as_it_was_trained_and_not_in_parity(
    engine: Engine, tmp_path: Path, said: dict[str, Any], as_trained: bool
) -> None:
    models, path, rate = engine._models["1.5"], tone(tmp_path / "a.wav", 0.4), Fraction(25)
    loudness = silence.measure(audio.mono(path, speech.SAMPLE_RATE_HZ))
    with torch.inference_mode():
        made = torch.cat(list(sound.windows(path, models, params.read(said), loudness, 10, rate, 4)))
        heard = {kind: speech.hidden(audio.mono(path, 16_000), models.whisper, as_trained=kind) for kind in (False, True)}
        wanted = {kind: speech.windows(heard[kind], range(10), rate, "repeat" if kind else "zeros") for kind in heard}
    assert torch.equal(made, wanted[as_trained])
    assert not torch.allclose(wanted[True][5], wanted[False][5], atol=0.01)
