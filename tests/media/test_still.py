"""Any image becomes the picture that a person would see: upright, 8 bits, without transparency."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from errors import InvalidInput
from media import still, turn
from media.probe import answer
from tests.media import files, pictures

#: (height, width, channels) in OpenCV's order: blue above, red below.
TWO = np.zeros((64, 80, 3), np.uint8)
TWO[:32, :, 0] = TWO[32:, :, 2] = 255


def read(tmp_path: Path, content: bytes) -> still.Picture:
    """The picture, of a file that the probe takes too."""
    path = tmp_path / "a"
    path.write_bytes(content)
    said = answer(path, "image", None)
    assert said["ok"], said
    picture = still.read(path)
    assert picture.dtype == np.uint8
    assert picture.shape == (said["height"], said["width"], 3)
    return picture


def is_near(colour: NDArray[Any], wanted: tuple[int, int, int]) -> bool:
    return bool(np.abs(colour.astype(int) - wanted).max() <= 8)


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif"])
def test_colours_are_rgb(tmp_path: Path, extension: str) -> None:
    picture = read(tmp_path, pictures.encoded(TWO, extension))
    assert is_near(picture[5, 40], (0, 0, 255))
    assert is_near(picture[60, 40], (255, 0, 0))


def test_cmyk_is_shown_in_its_colours(tmp_path: Path) -> None:
    assert is_near(read(tmp_path, pictures.CMYK_JPEG)[16, 16], (255, 0, 0))


@pytest.mark.parametrize("extension", [".png", ".webp", ".tiff"])
def test_what_is_transparent_is_laid_on_white(tmp_path: Path, extension: str) -> None:
    glass = np.dstack([TWO, np.full((64, 80), 255, np.uint8)])
    glass[:, :20, 3], glass[:, 20:40, 3] = 0, 128
    picture = read(tmp_path, pictures.encoded(glass, extension))
    assert is_near(picture[60, 10], (255, 255, 255))
    assert is_near(picture[60, 30], (255, 127, 127))
    assert is_near(picture[60, 70], (255, 0, 0))


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = TWO.astype(np.uint16) * 257
    assert np.array_equal(read(tmp_path, pictures.encoded(deep)), TWO[:, :, ::-1])
    glass = np.dstack([deep, np.full((64, 80), 32_768, np.uint16)])
    assert is_near(read(tmp_path, pictures.encoded(glass))[60, 40], (255, 127, 127))


def test_grey_becomes_colour(tmp_path: Path) -> None:
    assert is_near(read(tmp_path, pictures.encoded(np.full((64, 80), 77, np.uint8)))[5, 5], (77, 77, 77))


def in_chunks(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_one_clear_shade_is_laid_on_white(tmp_path: Path, bits: int) -> None:
    grey = np.full((64, 80), 50, np.uint8 if bits == 8 else np.uint16)
    grey[:, 40:] = 200
    content, scale = pictures.encoded(grey if bits == 8 else grey * 257), 1 if bits == 8 else 257
    at = content.index(b"IDAT") - 4
    picture = read(tmp_path, content[:at] + in_chunks(b"tRNS", struct.pack(">H", 50 * scale)) + content[at:])
    assert is_near(picture[5, 10], (255, 255, 255))
    assert is_near(picture[5, 60], (200, 200, 200))


def test_a_grey_tiff_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.dstack([np.full((64, 80), 50, np.uint8), np.full((64, 80), 255, np.uint8)])
    pixels[:, :40, 1] = 0
    picture = read(tmp_path, grey_tiff(pixels))
    assert is_near(picture[5, 10], (255, 255, 255))
    assert is_near(picture[5, 60], (50, 50, 50))


def grey_tiff(pixels: NDArray[np.uint8]) -> bytes:
    """(height, width, 2) as a TIFF of one strip; the second sample is the alpha. (No encoder here writes it.)"""
    height, width, samples = pixels.shape
    first = 8 + 2 + 11 * 12 + 4
    tags = [(256, width), (257, height), (258, 8 | 8 << 16), (259, 1), (262, 1), (273, first), (277, samples), (278, height)]
    tags += [(279, pixels.nbytes), (284, 1), (338, 2)]
    entries = [
        struct.pack("<HHII", tag, 3, 2, value) if tag == 258 else struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + pixels.tobytes()


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    picture = read(tmp_path, pictures.lying_on_its_side(pictures.encoded(TWO, ".jpg")))
    assert picture.shape == (80, 64, 3)
    assert is_near(picture[40, 60], (0, 0, 255))  # what was above is at the right
    assert is_near(picture[40, 4], (255, 0, 0))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparency_is_turned_with_its_picture(tmp_path: Path, orientation: int, order: str) -> None:
    glass = np.zeros((64, 80, 4), np.uint8)
    glass[:32, :, 2], glass[:, :40, 1], glass[32:, 40:, 0], glass[..., 3] = 255, 255, 255, 255
    glass[:32, 40:] = (0, 0, 255, 0)
    picture = read(tmp_path, pictures.turned(pictures.encoded(glass), orientation, order))
    opaque = read(tmp_path, pictures.turned(pictures.encoded(glass[..., :3]), orientation, order))
    is_glass = (opaque == (255, 0, 0)).all(axis=2)
    assert is_glass.mean() == 0.25
    assert (picture[is_glass] == 255).all()
    assert (picture[~is_glass] == opaque[~is_glass]).all()


@pytest.mark.parametrize("note", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09", b"Exif\0\0II*\0"])
def test_a_damaged_note_turns_nothing(note: bytes) -> None:
    assert turn.of_exif(note) == turn.Turn()


@pytest.mark.parametrize(("name", "codec", "pixels"), [("a.gif", "gif", "rgb8"), ("a.webp", "libwebp_anim", "yuv420p")])
def test_of_an_animation_the_first_frame_is_the_image(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """The older workers took it too, and it is what a viewer that cannot animate shows."""
    picture = read(tmp_path, pictures.moving(tmp_path / name, codec, pixels).read_bytes())
    assert picture[32, 40].argmax() == 1
    assert picture[32, 40, 1] > 180


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".gif", ".tiff", ".bmp"])
def test_what_is_cut_off_is_refused_and_never_grey(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    whole = pictures.encoded(noise, extension)
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "a").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InvalidInput):
            still.read(tmp_path / "a")


def test_a_photograph_of_many_pixels_is_read_whole(tmp_path: Path) -> None:
    large = np.kron(TWO, np.ones((40, 40, 1), np.uint8))  # 8 megapixels
    assert read(tmp_path, pictures.encoded(large, ".jpg")).shape == (2560, 3200, 3)


def test_an_image_of_a_kind_that_is_not_read_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pictures.encoded(TWO, ".avif"))
    assert answer(tmp_path / "a", "image", None)["error"] == (
        "this is an image of a kind that is not read (avif); send it as JPEG, PNG or WebP"
    )


def test_a_video_frame_is_no_image(tmp_path: Path) -> None:
    assert answer(files.movie(tmp_path / "a.mp4"), "image", None)["error"] == "this is a video, not an image"
