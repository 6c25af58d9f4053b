"""Pictures come upright, at a constant rate, in the right order both ways."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from errors import Cancelled, InvalidInput
from media import video
from tests.media import files


def nothing() -> None:
    """What `there_and_back` calls if nobody wants to know."""


def there_and_back(count: int, frames: int) -> list[int]:
    """The numbers that must come, by definition."""
    cycle = [*range(frames), *range(frames - 1, -1, -1)]
    return [cycle[at % len(cycle)] for at in range(count)]


def numbers(clip: video.Clip) -> list[int]:
    return [files.number_of(picture) for picture in video.pictures(clip)]


def test_every_picture_comes_once_and_in_order(tmp_path: Path) -> None:
    clip = video.open_clip(files.movie(tmp_path / "a.mp4", frames=40, bf="2"))
    assert (clip.width, clip.height, clip.rate, clip.frames_about) == (64, 64, Fraction(25), 40)
    assert numbers(clip) == list(range(40))


def test_a_varying_rate_becomes_a_constant_one_by_the_timestamps(tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.08, 0.28, 0.32, 0.36, 0.56, 0.60]
    clip = video.open_clip(files.movie(tmp_path / "a.mkv", frames=8, times_s=times_s, rate=25))
    shown = numbers(clip)
    at = [min(int((tick / clip.rate + Fraction(1, 2) / clip.rate) * 1000), 600) for tick in range(len(shown))]
    expected = [max(number for number, time_s in enumerate(times_s) if time_s * 1000 <= now) for now in at]
    assert shown == expected


def test_frames_closer_than_the_rate_allows_are_left_out(tmp_path: Path) -> None:
    times_s = [number * 0.02 if number < 10 else 0.2 + (number - 10) * 0.1 for number in range(30)]
    clip = video.open_clip(files.movie(tmp_path / "a.mp4", frames=30, times_s=times_s))
    shown = numbers(clip)
    assert shown == sorted(shown)
    assert len(shown) / clip.rate == pytest.approx(2.2, abs=0.11)


@pytest.mark.parametrize(
    ("average", "rate"),
    [
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (Fraction(2997, 100), Fraction(30000, 1001)),
        (Fraction(49_990, 2_001), Fraction(25)),
        (Fraction(17), Fraction(17)),
        (Fraction(90_000), Fraction(240)),
    ],
)
def test_a_rate_close_to_a_usual_one_is_that_one(average: Fraction, rate: Fraction) -> None:
    class Stream:
        average_rate = average
        base_rate = None

    assert video.constant_rate(Stream()) == rate


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda picture: picture),
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    ],
)
def test_a_turned_video_comes_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = files.turned(files.movie(tmp_path / "a.mp4", size=(96, 64), frames=6, crf="5"), matrix)
    clip = video.open_clip(path)
    picture = list(video.pictures(clip))[5]
    assert picture.shape == (clip.height, clip.width, 3)
    assert np.abs(picture.astype(int) - turn(files.numbered(5, 96, 64))).mean() < 8


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(files.numbered(5, 96, 64), cv2.COLOR_RGB2BGR))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn it right
    marked = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    (tmp_path / "a.jpg").write_bytes(marked)
    clip = video.open_clip(tmp_path / "a.jpg")
    assert (clip.width, clip.height, clip.is_still) == (64, 96, True)
    [picture] = video.pictures(clip)
    assert np.abs(picture.astype(int) - np.rot90(files.numbered(5, 96, 64), -1)).mean() < 8


def test_a_large_photo_is_made_playable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((3000, 4000, 3), np.uint8))[1].tobytes())
    clip = video.open_clip(tmp_path / "a.jpg")
    assert (clip.width, clip.height) == (1920, 1440)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((32, 32, 4), np.uint8))[1].tobytes())
    assert next(video.pictures(video.open_clip(tmp_path / "a.png"))).min() == 255


@pytest.mark.parametrize("kept_frames", [4, 7, 1000])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_video_goes_there_and_back_however_little_is_kept(tmp_path: Path, name: str, kept_frames: int) -> None:
    path = files.movie(tmp_path / name, frames=30, g="8", bf="0" if name == "a.avi" else "2")
    clip = video.open_clip(path)
    came = list(video.there_and_back(clip, 130, nothing, kept_bytes=kept_frames * 8000))
    assert [number for number, _ in came] == there_and_back(130, 30)
    assert [files.number_of(picture) for _, picture in came] == there_and_back(130, 30)


def test_an_open_group_of_pictures_is_read_backwards_whole(tmp_path: Path) -> None:
    clip = video.open_clip(
        files.movie(tmp_path / "a.mp4", frames=40, x264opts="open-gop=1:keyint=8:bframes=3:b-adapt=0:scenecut=0")
    )
    came = video.there_and_back(clip, 80, nothing, kept_bytes=5 * 8000)
    assert [files.number_of(picture) for _, picture in came] == there_and_back(80, 40)


def test_a_varying_rate_is_the_same_backwards(tmp_path: Path) -> None:
    times_s = [number * 0.04 + 0.3 * (number // 5) for number in range(25)]
    clip = video.open_clip(files.movie(tmp_path / "a.mp4", frames=25, times_s=times_s, g="6"))
    forwards = numbers(clip)
    came = list(video.there_and_back(clip, 2 * len(forwards), nothing, kept_bytes=5 * 8000))
    assert [files.number_of(picture) for _, picture in came] == forwards + forwards[::-1]


def test_a_still_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", files.numbered(9, 64, 64))[1].tobytes())
    came = list(video.there_and_back(video.open_clip(tmp_path / "a.png"), 5, nothing))
    assert [number for number, _ in came] == [0] * 5


def test_a_cancel_is_heard_while_frames_are_decoded_for_the_way_back(tmp_path: Path) -> None:
    clip = video.open_clip(files.movie(tmp_path / "a.mp4", frames=30, g="30"))
    calls = []

    def cancel() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        list(video.there_and_back(clip, 60, cancel, kept_bytes=4 * 8000))


def test_sound_has_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="audio only"):
        video.open_clip(files.sound(tmp_path / "a.wav"))


def test_a_file_whose_index_names_no_track_is_not_called_sound(tmp_path: Path) -> None:
    path = files.movie(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"trak", b"free"))
    with pytest.raises(InvalidInput, match="neither video nor audio"):
        video.open_clip(path)


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(50), Fraction(30000, 1001)])
def test_a_single_picture_has_its_files_rate(tmp_path: Path, name: str, rate: Fraction) -> None:
    clip = video.open_clip(files.movie(tmp_path / name, frames=1, rate=rate))
    assert clip.rate == rate
    assert len(numbers(clip)) == 1


def test_a_few_damaged_packets_are_left_out(tmp_path: Path) -> None:
    path = files.movie(tmp_path / "a.ts", frames=100, g="10")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle + 20 : middle + 150] = bytes(130)
    path.write_bytes(data)
    assert len(numbers(video.open_clip(path))) >= 80
