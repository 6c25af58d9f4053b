"""Finished videos play everywhere: what is in the file is checked by decoding it."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from errors import Cancelled, EngineFailed
from media import boxes, video, write
from media.probe import probe
from tests.media import files


def made(path: Path, *, count: int = 25, size: tuple[int, int] = (64, 48), rate: Fraction = Fraction(25), **more: Any) -> Path:
    pictures = (files.numbered(number, *size) for number in range(count))
    write.write(path, pictures, rate=rate, **{"speech": None, **more})
    return path


def test_the_video_is_h264_in_420_with_its_colours_tagged(tmp_path: Path) -> None:
    with av.open(str(made(tmp_path / "a.mp4"))) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert (stream.codec_context.pix_fmt, stream.average_rate) == ("yuv420p", 25)
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)


def test_the_index_comes_first(tmp_path: Path) -> None:
    kinds = [kind for kind, _, _ in boxes.top_level(made(tmp_path / "a.mp4"))]
    assert kinds.index("moov") < kinds.index("mdat")


def test_colours_come_out_as_they_went_in(tmp_path: Path) -> None:
    colours = np.array([(200, 40, 40), (40, 180, 60), (30, 60, 200), (210, 170, 140), (20, 20, 20), (240, 240, 240)], np.uint8)
    picture = np.repeat(np.repeat(colours[np.newaxis], 64, axis=0), 32, axis=1)
    write.write(tmp_path / "a.mp4", [picture] * 3, rate=Fraction(25), speech=None)
    back = list(video.pictures(video.open_clip(tmp_path / "a.mp4")))[-1]
    assert np.abs(back[32, 16::32].astype(int) - colours).max() <= 5


def test_every_frame_is_written_in_order(tmp_path: Path) -> None:
    back = video.pictures(video.open_clip(made(tmp_path / "a.mp4", count=60)))
    assert [files.number_of(picture) for picture in back] == list(range(60))


def test_an_odd_size_is_made_even_by_one_line_more(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", size=(65, 47))
    found = probe(path)
    assert (found.width, found.height) == (66, 48)
    back = next(video.pictures(video.open_clip(path)))
    assert np.abs(back[:, 65].astype(int) - back[:, 64]).mean() < 4


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(12)])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_sound_and_pictures_have_the_speechs_length(tmp_path: Path, rate: Fraction, layout: str) -> None:
    speech = files.sound(tmp_path / "a.wav", seconds=1.234, layout=layout, rate_hz=22_050)
    count = -int(-1.234 * rate // 1)
    with av.open(str(made(tmp_path / "a.mp4", count=count, rate=rate, speech=speech))) as container:
        [picture], [sound] = container.streams.video, container.streams.audio
        assert picture.frames == count
        for length_s in (picture.duration * picture.time_base, sound.duration * sound.time_base, container.duration / 1e6):
            assert float(length_s) == pytest.approx(1.234, abs=float(1 / rate))
        assert (sound.codec_context.name, sound.sample_rate) == ("aac", 48_000)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(1)])
def test_sound_that_goes_on_ends_with_the_pictures(tmp_path: Path, rate: Fraction) -> None:
    speech = files.sound(tmp_path / "a.wav", seconds=10)
    with av.open(str(made(tmp_path / "a.mp4", count=3, rate=rate, speech=speech))) as container:
        [sound] = container.streams.audio
        assert float(3 / rate) <= float(sound.duration * sound.time_base) <= float(4 / rate) + 0.2


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", pixel_aspect=Fraction(16, 15))
    assert video.open_clip(path).pixel_aspect == Fraction(16, 15)


def test_what_the_pictures_raise_passes_through(tmp_path: Path) -> None:
    def pictures() -> Any:
        yield files.numbered(0, 64, 64)
        raise Cancelled

    with pytest.raises(Cancelled):
        write.write(tmp_path / "a.mp4", pictures(), rate=Fraction(25), speech=None)


def test_no_picture_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no frame"):
        write.write(tmp_path / "a.mp4", [], rate=Fraction(25), speech=None)


class Broken:
    """A stream of pictures whose encoder breaks in the middle, as one on a card can: by words that sound like the disk's."""

    def __init__(self, encoder: str) -> None:
        self.codec_context = SimpleNamespace(name=encoder)

    def encode(self, frame: Any) -> Any:
        raise av.error.FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize(("broken", "left"), [("h264_nvenc", ["libx264"]), ("libx264", ["h264_nvenc", "libx264"])])
def test_a_cards_encoder_that_breaks_is_left_alone_so_that_the_next_attempt_succeeds(broken: str, left: list[str]) -> None:
    try:
        with pytest.raises(EngineFailed, match="the video cannot be encoded: No such file") as caught:
            write.encoded(Broken(broken), None)
        assert caught.value.details == {"encoder": broken}
        assert write.usable() == left
    finally:
        write._FAILED.clear()
    assert write.usable() == ["h264_nvenc", "libx264"]


def test_the_sounds_encoder_that_breaks_is_not_the_videos() -> None:
    with pytest.raises(EngineFailed, match="the audio cannot be encoded: No such file"):
        write.encoded_sound(Broken("aac"), None)
    assert write.usable() == ["h264_nvenc", "libx264"]


def test_the_encoder_that_is_chosen_opens_and_is_the_one_that_writes(tmp_path: Path) -> None:
    chosen = write.choose_encoder(64, 48, Fraction(25))
    made = write.write(tmp_path / "a.mp4", [files.numbered(0, 64, 48)], rate=Fraction(25), speech=None)
    assert chosen == made.encoder


def test_a_size_that_no_encoder_takes_is_said() -> None:
    with pytest.raises(EngineFailed, match=r"no H.264 encoder can be opened for 20000x20000"):
        write.choose_encoder(20000, 20000, Fraction(25))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_is_an_os_error() -> None:
    noise = np.random.default_rng(0)
    pictures = (noise.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(60))
    with pytest.raises(OSError, match="No space left"):
        write.write(Path("/dev/full"), pictures, rate=Fraction(25), speech=None)
