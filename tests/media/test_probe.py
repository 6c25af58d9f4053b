"""What counts as media, and what is said of what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from errors import InvalidInput
from media.probe import answer, probe
from tests.media import files, pictures

ROOT = Path(__file__).resolve().parents[2]


def refusal(path: Path, wanted: str = "video", max_s: float | None = None) -> str:
    said = answer(path, wanted, max_s)
    assert not said["ok"], said
    return str(said["error"])


def test_a_video_is_described(tmp_path: Path) -> None:
    found = probe(files.movie(tmp_path / "a.mp4", frames=50, size=(96, 64)))
    assert (found.kind, found.container, found.width, found.height) == ("video", "mov", 96, 64)
    assert (found.rate, found.frames, found.duration_s, found.has_audio) == (Fraction(25), 50, 2.0, False)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi", "a.mov", "a.ts"])
def test_the_usual_containers_are_read(tmp_path: Path, name: str) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    found = probe(files.movie(tmp_path / name, frames=60, codec=codec))
    assert found.kind == "video"
    assert found.duration_s == pytest.approx(2.4, abs=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate_hz"),
    [
        ("a.wav", "pcm_u8", "mono", 8000),
        ("a.wav", "pcm_s16le", "5.1", 48000),
        ("a.mp3", "libmp3lame", "stereo", 44100),
        ("a.m4a", "aac", "mono", 44100),
        ("a.ogg", "libopus", "mono", 48000),
        ("a.flac", "flac", "stereo", 96000),
    ],
)
def test_sound_of_every_shape_is_read(tmp_path: Path, name: str, codec: str, layout: str, rate_hz: int) -> None:
    found = probe(files.sound(tmp_path / name, seconds=5, codec=codec, layout=layout, rate_hz=rate_hz))
    assert (found.kind, found.sample_rate_hz) == ("audio", rate_hz)
    assert found.channels == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    assert found.duration_s == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "without-extension"])
def test_a_still_image_is_an_image_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    extension = path.suffix or ".jpg"
    path.write_bytes(cv2.imencode(extension, files.numbered(3, 80, 64))[1].tobytes())
    found = probe(path)
    assert (found.kind, found.width, found.height) == ("image", 80, 64)
    assert answer(path, "video", None)["ok"]
    assert answer(path, "image", None)["ok"]


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert "empty" in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", "HTML page"),
        (b'{"error": "not found"}', "JSON"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "text"),
        (b"%PDF-1.7 \0\0", "document"),
        (b"\0" * 4000, "not in a known media format"),
        (b"\x80\x91\xf3" * 3000, "not in a known media format"),
    ],
)
def test_what_is_no_media_is_called_by_its_name(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.mp4").write_bytes(data)
    assert words in refusal(tmp_path / "a.mp4")


def test_an_mp4_without_its_index_is_cut_off(tmp_path: Path) -> None:
    path = files.movie(tmp_path / "a.mp4", frames=50)
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"moov") - 10])
    assert "cut off" in refusal(path)


def test_an_mp4_whose_data_ends_early_is_cut_off(tmp_path: Path) -> None:
    whole = files.movie(tmp_path / "a.mp4", frames=100).read_bytes()
    index, data = whole.index(b"moov") - 4, whole.index(b"mdat") - 4
    path = tmp_path / "b.mp4"
    path.write_bytes(whole[:data] + whole[index:] + whole[data : data + (index - data) // 2])
    assert "cut off" in refusal(path)


def test_a_wav_that_ends_early_is_cut_off(tmp_path: Path) -> None:
    path = files.sound(tmp_path / "a.wav", seconds=20)
    path.write_bytes(path.read_bytes()[:200_000])
    assert "cut off" in refusal(path, "audio")


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_an_image_that_ends_early_is_refused(tmp_path: Path, extension: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    whole = cv2.imencode(extension, noise)[1].tobytes()
    (tmp_path / "a").write_bytes(whole[: int(len(whole) * share)])
    refusal(tmp_path / "a", "image")


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_a_video_of_no_frames_is_refused(tmp_path: Path, name: str) -> None:
    path = files.movie(tmp_path / name, frames=0, codec="mpeg4")
    assert "0 frames" in refusal(path)


def test_sound_where_a_video_belongs_is_refused(tmp_path: Path) -> None:
    assert "audio only" in refusal(files.sound(tmp_path / "a.mp3", codec="libmp3lame"))


def test_a_silent_video_is_no_speech(tmp_path: Path) -> None:
    assert "without sound" in refusal(files.movie(tmp_path / "a.mp4"), "audio")


def test_a_video_is_no_image(tmp_path: Path) -> None:
    assert refusal(files.movie(tmp_path / "a.mp4"), "image") == "this is a video, not an image"


def test_what_is_too_long_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = files.sound(tmp_path / "a.wav", seconds=3)
    assert refusal(path, "audio", 2) == "audio: 3.0 s long, at most 2 s is allowed"
    assert answer(path, "audio", 3)["ok"]


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    flat = np.zeros((20, 20_000, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", flat)[1].tobytes())
    assert "20000x20" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (400, 31)])
def test_a_picture_that_nothing_can_be_made_of_is_refused_with_the_least_size(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a").write_bytes(pictures.encoded(np.zeros((size[1], size[0], 3), np.uint8)))
    assert refusal(tmp_path / "a", "image") == f"the picture is {size[0]}x{size[1]} pixels, at least 32x32 is required"


def test_a_decompression_bomb_costs_no_memory(tmp_path: Path) -> None:
    """1.2 GB of pixels in a megabyte: refused by what the header says, before any decoder is shown it."""
    (tmp_path / "bomb").write_bytes(pictures.bomb(20_000, 20_000))
    (tmp_path / "small").write_bytes(pictures.encoded(files.numbered(3, 80, 64)))
    said, peak_bytes = probed(tmp_path / "bomb")
    _, usual_bytes = probed(tmp_path / "small")
    assert said["error"].startswith("the picture is 20000x20000 pixels, at most 67 megapixels and 16384 pixels per side")
    assert peak_bytes < usual_bytes + (32 << 20)


def probed(path: Path) -> tuple[dict[str, Any], int]:
    """What the command prints, and the most memory that it had."""
    command = [sys.executable, "-m", "media.probe", "--as", "image", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return said, used.ru_maxrss * 1024


def test_a_webp_that_moves_is_no_video_that_can_be_read(tmp_path: Path) -> None:
    path = pictures.moving(tmp_path / "a.webp", "libwebp_anim", "yuv420p")
    assert refusal(path) == "this is an animated WebP, which cannot be read as a video; send it as GIF or MP4"


def test_a_turned_video_is_measured_upright(tmp_path: Path) -> None:
    found = probe(files.turned(files.movie(tmp_path / "a.mp4", size=(96, 64)), (0, 1, -1, 0)))
    assert (found.width, found.height) == (64, 96)


def test_probing_does_not_need_an_extension(tmp_path: Path) -> None:
    files.movie(tmp_path / "a.mp4").rename(tmp_path / "input-video")
    assert probe(tmp_path / "input-video").kind == "video"


def test_a_title_in_an_unknown_encoding_does_not_matter(tmp_path: Path) -> None:
    path = files.sound(tmp_path / "a.mp3", codec="libmp3lame", seconds=1, title="ZZZZZZ")
    data = path.read_bytes()
    assert b"ZZZZZZ" in data
    path.write_bytes(data.replace(b"ZZZZZZ", b"\xff\xfe\xe9\xff\xff\xff"))
    assert probe(path).kind == "audio"


def test_no_media_raises_invalid_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    with pytest.raises(InvalidInput, match="this is text"):
        probe(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"<html></html>", None])
def test_the_command_prints_one_object_and_ends_with_0(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content is None:
        files.movie(path, frames=25)
    else:
        path.write_bytes(content)
    command = [sys.executable, "-m", "media.probe", "--as", "video", "--max-duration", "60", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is (content is None)
    assert said.get("rate", "25") == "25"


def test_the_command_dies_with_its_parent_and_is_limited() -> None:
    code = (
        "import resource; from media import confine; confine.this_process(memory_bytes=1 << 30, cpu_s=5);"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CPU)[0],"
        "resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(1 << 30), "5", "0"]
