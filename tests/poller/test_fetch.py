from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import Cancelled, EngineFailed, InvalidInput, Unavailable, Unreachable
from jobqueue import spool
from jobqueue.job import Job
from jobqueue.worker import Progress
from operations import Operator
from poller import fetch
from poller.identity import News
from poller.transfer import Limits
from tests.fakes import clips
from tests.fakes.file_server import Answer, FileServer, Handler, silence, status, whole
from tests.media import pictures
from tests.patience import PATIENCE_S
from tests.poller.house import House, eventually, running

VIDEO, SPEECH = clips.video(), clips.speech()
OTHER = clips.video(1)


def inputs(house: House, **limits: Any) -> fetch.Inputs:
    values = {"max_bytes": 10_000_000, "tries": 1, "total_s": 20, "pause_s": 0.01, "allow_private": True}
    return fetch.Inputs(data_dir=house.data_dir, limits=Limits(**{**values, **limits}), max_duration_s=60, timeout_s=60)


def arrived(house: House, video: str, audio: str, **changes: Any) -> Job:
    return house.job("fetching", inputs={"video_url": video, "audio_url": audio}, **changes)


def progress(house: House, job: Job) -> Progress:
    return Progress(house.queue, job, threading.Event(), 5.0)


def served(*answers: bytes) -> FileServer:
    return FileServer([whole(answer) for answer in answers])


def test_inputs_are_brought_and_said_to_be_what_they_are(house: House) -> None:
    with served(VIDEO) as faces, served(SPEECH) as voices:
        job = arrived(house, faces.url(), voices.url())
        found = fetch.fetch(job, progress(house, job), inputs(house), News())
    assert spool.input_file(house.data_dir, job.id, "video_url").read_bytes() == VIDEO
    assert spool.input_file(house.data_dir, job.id, "audio_url").read_bytes() == SPEECH
    assert set(found["stage_times"]) == {"download", "validation"}
    assert (found["inputs_probed"]["video_url"]["kind"], found["inputs_probed"]["audio_url"]["kind"]) == ("video", "audio")


def test_what_an_earlier_life_brought_is_not_brought_again(house: House) -> None:
    job = arrived(house, "http://127.0.0.1:9/gone.mp4", "http://127.0.0.1:9/gone.wav")
    spool.folder(house.data_dir, job.id).mkdir(parents=True)
    spool.input_file(house.data_dir, job.id, "video_url").write_bytes(VIDEO)
    spool.input_file(house.data_dir, job.id, "audio_url").write_bytes(SPEECH)
    assert "inputs_probed" in fetch.fetch(job, progress(house, job), inputs(house), News())


def test_a_round_with_another_link_brings_that_one_and_one_with_the_same_link_nothing(house: House) -> None:
    target = spool.input_file(house.data_dir, "job-1", "video_url")
    with served(VIDEO, OTHER) as faces, served(SPEECH) as voices:
        for link, body in (("/1", VIDEO), ("/2", OTHER), ("/2", OTHER)):
            job = arrived(house, faces.url(link), voices.url())
            fetch.fetch(job, progress(house, job), inputs(house), News())
            assert target.read_bytes() == body
            house.queue.fail(job, {"message": "no face"})
        assert [seen.path for seen in faces.seen] == ["/1", "/2"]
        assert len(voices.seen) == 1


def test_a_job_that_was_refused_and_is_begun_anew_by_hand_is_refused_again(house: House) -> None:
    job = house.job("fetching", inputs={})
    with pytest.raises(InvalidInput, match="video_url: is missing"):
        fetch.fetch(job, progress(house, job), inputs(house), News())


def test_inputs_are_on_their_way_at_the_same_time(house: House) -> None:
    both = threading.Barrier(2)

    def together(body: bytes) -> Answer:
        def answer(handler: Handler) -> None:
            both.wait(PATIENCE_S)
            whole(body)(handler)

        return answer

    with FileServer([together(VIDEO)]) as faces, FileServer([together(SPEECH)]) as voices:
        job = arrived(house, faces.url(), voices.url())
        assert "inputs_probed" in fetch.fetch(job, progress(house, job), inputs(house), News())


def test_what_is_wrong_with_one_input_ends_the_others(house: House) -> None:
    with FileServer([status(404)]) as faces, FileServer([silence]) as voices:
        job = arrived(house, faces.url(), voices.url())
        with pytest.raises(InvalidInput) as raised:
            fetch.fetch(job, progress(house, job), inputs(house, total_s=600), News())
    assert raised.value.message.startswith("video_url: ")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("input")]


class OneThread(ThreadPoolExecutor):
    """On a machine that gives no second thread."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        if self._threads:
            raise RuntimeError("can't start new thread")
        return super().submit(*arguments, **named)


def test_a_thread_that_cannot_be_started_ends_the_input_that_is_on_its_way(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ThreadPoolExecutor", OneThread)
    with FileServer([silence]) as faces, served(SPEECH) as voices:
        job = arrived(house, faces.url(), voices.url())
        with pytest.raises(RuntimeError, match="can't start new thread"):
            fetch.fetch(job, progress(house, job), inputs(house, total_s=600, read_timeout_s=600, window_s=600), News())


@pytest.mark.parametrize(
    ("video", "audio", "field"),
    [
        (b"<html><body>log in</body></html>", SPEECH, "video_url"),
        (b"", SPEECH, "video_url"),
        (VIDEO[: len(VIDEO) // 3], SPEECH, "video_url"),
        (SPEECH, SPEECH, "video_url"),
        (VIDEO, VIDEO, "audio_url"),  # without sound
        (VIDEO, os.urandom(5000), "audio_url"),
        (VIDEO, clips.speech(seconds=61), "audio_url"),
    ],
)
def test_what_is_no_media_is_the_senders_fault_and_the_field_is_named(
    house: House, video: bytes, audio: bytes, field: str
) -> None:
    with served(video) as faces, served(audio) as voices:
        job = arrived(house, faces.url(), voices.url())
        with pytest.raises(InvalidInput) as raised:
            fetch.fetch(job, progress(house, job), inputs(house), News())
    assert raised.value.message.startswith(f"{field}: ")
    assert raised.value.stage in ("validation", "download")


def image_job(house: House, link: str) -> Job:
    return house.job("claimed", engine="fastwan", inputs={"image_url": link, "prompt": "a walk"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html><body>log in</body></html>", "this is an HTML page, not media"),
        (VIDEO, "this is a video, not an image"),
        (SPEECH, "this is sound, not an image"),
        (pictures.encoded(np.zeros((1, 1, 3), np.uint8)), "the picture is 1x1 pixels, at least 32x32 is required"),
        (pictures.bomb(20_000, 20_000), "the picture is 20000x20000 pixels, at most 67 megapixels"),
        (pictures.CMYK_JPEG[:150], "the image is damaged or cut off"),
    ],
    ids=["a page", "a video", "sound", "a dot", "a bomb", "cut off"],
)
def test_a_bad_image_fails_its_job_at_once_and_says_why(house: House, content: bytes, says: str) -> None:
    with served(content) as images:
        image_job(house, images.url())
        with running(fetch.loop(house.queue, inputs(house), News(), "poller/test.1")):
            eventually(lambda: house.queue.counts() == {"failed": 1})
    ((_, job),) = house.outbox.due()
    assert job.error is not None
    assert (job.error["error_type"], job.error["retryable"], job.error["stage"]) == ("media_error", False, "validation")
    assert job.error["message"].startswith(f"image_url: {says}")
    assert not spool.input_file(house.data_dir, job.id, "image_url").exists()


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (pictures.CMYK_JPEG, (32, 32)),
        (pictures.lying_on_its_side(pictures.encoded(np.zeros((48, 64, 3), np.uint8), ".jpg")), (48, 64)),
        (pictures.encoded(np.zeros((48, 64, 4), np.uint16)), (64, 48)),
        (pictures.encoded(np.zeros((48, 64, 3), np.uint8), ".gif"), (64, 48)),
    ],
    ids=["CMYK", "turned", "16 bits and alpha", "GIF"],
)
def test_an_unusual_image_is_brought_and_measured_upright(house: House, content: bytes, size: tuple[int, int]) -> None:
    with served(content) as images:
        job = image_job(house, images.url())
        with running(fetch.loop(house.queue, inputs(house), News(), "poller/test.1")):
            eventually(lambda: house.queue.counts() == {"ready": 1})
    fetched = house.queue.get(job.id)
    assert fetched is not None
    probed = fetched.result["inputs_probed"]["image_url"]
    assert (probed["kind"], probed["width"], probed["height"]) == ("image", *size)
    assert spool.input_file(house.data_dir, job.id, "image_url").read_bytes() == content


def test_a_dead_link_is_the_senders_fault(house: House) -> None:
    with FileServer([status(404)]) as faces:
        job = arrived(house, faces.url(), faces.url())
        with pytest.raises(InvalidInput, match="video_url"):
            fetch.fetch(job, progress(house, job), inputs(house), News())


def test_a_file_link_is_taken_from_an_operator_alone(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(VIDEO)
    for source, link in (("local", secret.as_uri()), ("main", secret.as_uri()), ("local", "file:///etc/passwd")):
        job = arrived(house, link, link, source=source, job_id=f"{source}-{len(link)}")
        with pytest.raises(InvalidInput, match="must be an http"):
            fetch.fetch(job, progress(house, job), inputs(house), News())


def test_a_file_that_an_operator_handed_in_is_taken_over(house: House, tmp_path: Path) -> None:
    face, voice = tmp_path / "face.mp4", tmp_path / "voice.wav"
    face.write_bytes(VIDEO)
    voice.write_bytes(SPEECH)
    operator = Operator(actor="a test", queue=house.queue, control=house.control, outbox=house.outbox)
    job = operator.submit({"video_url": str(face), "audio_url": str(voice)}, "musetalk", house.data_dir)
    with running(fetch.loop(house.queue, inputs(house), News(), "poller/test.1")):
        eventually(lambda: house.queue.counts() == {"ready": 1})
    assert spool.input_file(house.data_dir, job.id, "video_url").read_bytes() == VIDEO


def test_a_decoder_that_dies_costs_the_job_and_nothing_else() -> None:
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    talks = [sys.executable, "-c", "print('no JSON')"]
    assert fetch.run_probe(killed, lambda: None) is None
    assert fetch.run_probe(talks, lambda: None) is None


def test_a_decoder_that_somebody_ends_says_nothing_of_its_file() -> None:
    ended = [sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]
    with pytest.raises(EngineFailed, match="was killed by signal 15"):
        fetch.run_probe(ended, lambda: None)


def test_a_signal_to_all_programs_does_not_reach_the_decoder() -> None:
    says = [sys.executable, "-c", "import json, os; print(json.dumps({'group': os.getpgrp()}))"]
    found = fetch.run_probe(says, lambda: None)
    assert found
    assert found["group"] != os.getpgrp()


@pytest.mark.parametrize(("others", "error"), [({}, Unreachable), ({"ok": True}, Unreachable), ({"ok": False}, Unavailable)])
def test_a_server_that_fails_ends_the_job_after_the_tries_unless_nobody_else_answers_either(
    house: House, others: dict[str, Any], error: type[Exception]
) -> None:
    with FileServer([status(503)] * 3) as faces, served(SPEECH) as voices:
        job = arrived(house, faces.url(), voices.url())
        with pytest.raises(error, match=r"answered 503 Service Unavailable \(tried 2 times\)"):
            fetch.fetch(job, progress(house, job), inputs(house, tries=2), News(orchestrator=others))
        assert len(faces.seen) == 2


def test_a_decoder_that_hangs_is_ended() -> None:
    hangs = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert fetch.run_probe(hangs, lambda: None, timeout_s=0.5) is None


def test_a_cancel_is_obeyed_while_a_download_drags_on(house: House) -> None:
    over = threading.Event()

    def drags(handler: Handler) -> None:
        over.wait(30)

    with FileServer([drags]) as faces:
        job = arrived(house, faces.url(), faces.url())
        assert house.queue.cancel(job.id, "by hand")
        with pytest.raises(Cancelled):
            fetch.fetch(job, progress(house, job), inputs(house), News())
        over.set()


def test_the_speed_of_downloads_is_kept(house: House) -> None:
    news = News()
    with served(clips.speech(seconds=20)) as voices, served(VIDEO) as faces:
        job = arrived(house, faces.url(), voices.url())
        fetch.fetch(job, progress(house, job), inputs(house), news)
    assert news.download_speed_mbps is not None
    assert news.download_speed_mbps > 0


def test_a_full_or_broken_disk_is_no_fault_of_the_job(house: House) -> None:
    (house.data_dir / "jobs").write_text("a file where the folder belongs")
    with served(VIDEO) as faces, running(fetch.loop(house.queue, inputs(house), News(), "poller/test.1")):
        house.job("claimed", inputs={"video_url": faces.url(), "audio_url": faces.url()})
        job = eventually(lambda: (found := house.queue.get("job-1")) and found.result.get("last_error") and found)
    assert "could not be created" in job.result["last_error"]
    assert not job.finished
