from __future__ import annotations

import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from jobqueue import spool
from jobqueue.database import RESERVE_BYTES
from jobqueue.job import UPLOAD
from jobqueue.outbox import PIECE
from operations import incoming
from poller.janitor import Janitor, pause_after
from telemetry.disk import held_bytes
from tests.fakes import history
from tests.poller.house import House, running

HOUR = 3600.0
MB = 1_000_000


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk of this machine is like."""
    monkeypatch.setattr("poller.janitor._lacking_bytes", lambda folder: -1e12)


def janitor(house: House, limit_bytes: float = 1e12, keep_s: float = 7 * 86400) -> Janitor:
    return Janitor(house.queue, house.outbox, house.data_dir, limit_bytes, keep_s)


def put(file: Path, size: int = 10, age_s: float = 0.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    then = time.time() - age_s
    os.utime(file, (then, then))
    os.utime(file.parent, (then, then))
    return file


def output(house: House, job_id: str, size: int = 10) -> Path:
    return put(spool.output_file(house.data_dir, job_id), size)


def acknowledge(house: House) -> None:
    for event, _ in house.outbox.due():
        house.outbox.sent(event, "200")


def test_a_job_that_is_old_and_acknowledged_is_forgotten(house: House) -> None:
    house.job("succeeded")
    file = output(house, "job-1")
    acknowledge(house)
    janitor(house, keep_s=-60).clean()
    assert not file.parent.exists()
    assert house.queue.get("job-1") is None


def test_nothing_goes_before_the_end_is_acknowledged(house: House) -> None:
    house.job("succeeded")
    file = output(house, "job-1")
    janitor(house, limit_bytes=0, keep_s=-60).clean()
    assert file.exists()
    assert house.queue.get("job-1") is not None


@pytest.mark.parametrize("keep_s", [1e12, float("inf")])
def test_what_is_kept_for_ever_is_kept(house: House, keep_s: float) -> None:
    house.job("succeeded")
    acknowledge(house)
    janitor(house, keep_s=keep_s).clean()
    assert house.queue.get("job-1") is not None


def test_what_is_young_is_kept(house: House) -> None:
    house.job("succeeded")
    file = output(house, "job-1")
    acknowledge(house)
    janitor(house).clean()
    assert file.exists()


def test_what_an_operator_wants_removed_goes_when_its_end_is_acknowledged(house: House) -> None:
    house.job("succeeded")
    file = output(house, "job-1")
    house.control.ask_discard(["job-1", "nobody"])
    own = janitor(house)
    own.discard()
    assert file.exists()
    assert house.control.discards() == ["job-1"]
    acknowledge(house)
    own.discard()
    assert not file.parent.exists()
    assert house.control.discards() == []
    assert house.queue.get("job-1") is not None


def test_with_it_goes_the_video_in_the_store_of_this_machine_but_no_other_one(house: House) -> None:
    in_bucket, here = {"b2_bucket": "videos", "b2_file_name": "x/1.mp4"}, {"b2_bucket": None, "b2_file_name": "x/2.mp4"}
    for job_id, stored in (("job-1", in_bucket), ("job-2", here)):
        job = house.job("uploading", job_id)
        house.queue.done(UPLOAD, job, {"output_url": "https://store.example/x.mp4", **stored})
    files = [put(house.data_dir / "outputs/x" / name) for name in ("1.mp4", "2.mp4", "2.json", "3.mp4")]
    acknowledge(house)
    house.control.ask_discard(["job-1", "job-2"])
    janitor(house).discard()
    assert [file.exists() for file in files] == [True, False, False, True]


def test_a_job_that_began_anew_keeps_its_files(house: House) -> None:
    house.job("failed")
    file = output(house, "job-1")
    house.control.ask_discard(["job-1"])
    house.queue.retry("job-1")
    janitor(house).discard()
    assert file.exists()
    assert house.control.discards() == []


def test_over_the_limit_what_only_saves_time_goes_first(house: House) -> None:
    house.job("succeeded")
    kept = output(house, "job-1", MB)
    acknowledge(house)
    old, new = (put(house.data_dir / f"cache/musetalk/{age}.avatar", MB, age) for age in (9000, 60))
    janitor(house, limit_bytes=held_bytes(house.data_dir) - 0.5 * MB).clean()
    assert (kept.exists(), old.exists(), new.exists()) == (True, False, True)


def test_then_the_oldest_finished_folders_go(house: House) -> None:
    for name in ("first", "second", "third"):
        house.job("succeeded", name)
        output(house, name, MB)
        acknowledge(house)
    house.job("generated", "unfinished")
    output(house, "unfinished", MB)
    janitor(house, limit_bytes=held_bytes(house.data_dir) - 1.5 * MB).clean()
    kept = [name for name in ("first", "second", "third", "unfinished") if spool.output_file(house.data_dir, name).exists()]
    assert kept == ["third", "unfinished"]
    assert house.queue.get("first") is not None  # the row stays for the page


def test_then_the_oldest_stored_outputs_go_but_none_that_is_not_yet_reported(house: House) -> None:
    house.job("succeeded", "unreported")
    stored = {name: put(house.data_dir / f"outputs/a/{name}.mp4", MB, age) for name, age in (("unreported", 9e5), ("old", 9e4))}
    stored["new"] = put(house.data_dir / "outputs/a/new.mp4", MB, 60)
    janitor(house, limit_bytes=held_bytes(house.data_dir) - 0.5 * MB).clean()
    assert [name for name, file in stored.items() if file.exists()] == ["unreported", "new"]


def test_a_copy_that_is_on_its_way_into_the_store_stays_and_one_that_nobody_ends_goes(house: House) -> None:
    house.job("uploading", "a.job")
    going, dead = (put(house.data_dir / f"outputs/a/.{name}.mp4.part", MB, 9e4) for name in ("a.job", "dead"))
    janitor(house, limit_bytes=0).clean()
    assert (going.exists(), dead.exists()) == (True, False)


def test_on_a_disk_that_is_smaller_than_the_limit_finished_folders_go_too_but_no_stored_output(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        house.job("succeeded", name)
        output(house, name, MB)
        acknowledge(house)
    house.job("generated", "unfinished")
    output(house, "unfinished", MB)
    stored = put(house.data_dir / "outputs/a/first.mp4", MB, 9e5)
    monkeypatch.setattr("poller.janitor._lacking_bytes", lambda folder: 0.5 * MB)
    janitor(house, limit_bytes=1e12).clean()
    assert [spool.output_file(house.data_dir, name).exists() for name in ("first", "second", "unfinished")] == [
        False,
        True,
        True,
    ]
    monkeypatch.setattr("poller.janitor._lacking_bytes", lambda folder: 1e12)
    janitor(house, limit_bytes=1e12).clean()
    assert [spool.output_file(house.data_dir, name).exists() for name in ("second", "unfinished")] == [False, True]
    assert stored.exists()


def test_that_nothing_is_left_that_could_go_is_said_once(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("poller.janitor._lacking_bytes", lambda folder: 1e9)
    one = janitor(house)
    for _ in range(3):
        one.clean()
    assert caplog.text.count("free some space") == 1


def test_a_folder_of_no_job_goes_after_an_hour(house: House) -> None:
    old, young = put(house.data_dir / "jobs/old/input-video", age_s=2 * HOUR), put(house.data_dir / "jobs/young/input-video")
    janitor(house).clean()
    assert (old.exists(), young.exists()) == (False, True)


def test_files_that_were_handed_in_go_after_a_day_unless_a_job_waits_for_them(house: House) -> None:
    wanted = put(incoming(house.data_dir) / "wanted.mp4", age_s=25 * HOUR)
    house.job("claimed", source="local", inputs={"video_url": wanted.as_uri()})
    done, young = put(wanted.with_name("done.mp4"), age_s=25 * HOUR), put(wanted.with_name("young.mp4"))
    janitor(house).clean()
    assert (wanted.exists(), done.exists(), young.exists()) == (True, False, True)


def test_leftovers_of_a_finished_job_go_and_its_output_stays(house: House) -> None:
    house.job("succeeded")
    acknowledge(house)
    file = output(house, "job-1")
    part = put(file.with_name("input-video.part"), age_s=HOUR)
    dead = put(spool.attempt_file(house.data_dir, "job-1", "inference/dead"), age_s=HOUR)
    janitor(house).clean()
    assert (file.exists(), part.exists(), dead.exists()) == (True, False, False)


def test_the_reserve_that_a_full_disk_has_cost_is_made_anew_once_there_is_room(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = house.data_dir / "jobs.reserve"
    reserve.unlink()
    monkeypatch.setattr("poller.janitor._free_bytes", lambda folder: RESERVE_BYTES)
    janitor(house).clean()
    assert not reserve.exists()
    monkeypatch.setattr("poller.janitor._free_bytes", lambda folder: 100 * RESERVE_BYTES)
    janitor(house).clean()
    assert reserve.stat().st_size == RESERVE_BYTES


def test_a_round_takes_no_memory_for_jobs_whose_files_are_gone(house: House) -> None:
    history.fill(house.queue.database, jobs=8 * PIECE)
    tracemalloc.start()
    try:
        janitor(house).clean()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1000 * PIECE  # one piece of them


def test_rounds_that_take_long_are_more_seldom() -> None:
    assert [pause_after(spent_s) for spent_s in (0.0, 0.2, 1.5, 60.0)] == [60.0, 60.0, 300.0, 300.0]


def test_it_ends_when_it_is_told_to(house: House) -> None:
    with running(janitor(house).loop):
        assert threading.active_count() > 1
