"""Flags that end by themselves, restarts that wait, and the audit trail: what operators leave behind for the programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobqueue import clock
from jobqueue.control import Control, rebased
from jobqueue.job import FETCH, GENERATE, NewJob
from jobqueue.migrations import prepare
from jobqueue.queue import Queue


def make_over(control: Control, flag: str) -> None:
    """As if the flag's time had passed."""
    sql = "update control set value = json_set(value, '$.until_boot_s', ?) where name = ?"
    control.database.write(lambda connection: connection.execute(sql, (clock.now() - 1, flag)).fetchall())


def make_ready(queue: Queue, job_id: str) -> None:
    queue.add(NewJob(id=job_id, source="main", engine="musetalk", inputs={}))
    job = queue.take(FETCH, "poller/1")
    assert job
    queue.done(FETCH, job, {})


def test_a_pause_with_a_time_holds_until_then_and_no_longer(queue: Queue, control: Control) -> None:
    make_ready(queue, "one")
    assert control.put_up("paused", "lunch", "test", until=3600)
    flag = control.flag("paused")
    assert flag
    assert flag["until_boot_s"] == pytest.approx(clock.now() + 3600, abs=5)
    assert queue.take(GENERATE, "inference/1") is None
    make_over(control, "paused")
    assert control.flags() == {}
    assert queue.take(GENERATE, "inference/1")


def test_a_hold_ends_by_itself_though_nobody_takes_it_down(queue: Queue, control: Control) -> None:
    make_ready(queue, "one")
    job = queue.take(GENERATE, "inference/1")
    assert job
    control.put_up("hold", "the clock jumped", "poller", until=60)
    assert queue.progress(job, "inferring", 0.5).hold
    make_over(control, "hold")
    assert control.flags() == {}
    assert not queue.progress(job, "inferring", 0.5).hold


def test_a_pause_that_is_over_is_as_if_it_had_never_been(control: Control) -> None:
    control.put_up("paused", "lunch", "test", until=60)
    make_over(control, "paused")
    assert not control.take_down("paused")
    control.put_up("paused", "lunch", "test", until=60)
    assert not control.put_up("paused", "dinner", "test")
    make_over(control, "paused")
    assert control.put_up("paused", "dinner", "test")
    assert control.lapsed() == {}


def test_what_is_over_is_said_once(control: Control) -> None:
    control.put_up("paused", "lunch", "test", until=60)
    assert control.lapsed() == {}
    make_over(control, "paused")
    assert control.lapsed()["paused"]["reason"] == "lunch"
    assert control.lapsed() == {}


def test_a_drain_with_a_deadline_does_not_end_by_itself(control: Control) -> None:
    control.put_up("draining", "new image", "test", deadline=1)
    assert control.flag("draining")
    assert control.lapsed() == {}


def test_after_a_boot_a_time_goes_on_from_the_time_of_day() -> None:
    until = (datetime.now(UTC) + timedelta(seconds=600)).isoformat().replace("+00:00", "Z")
    value = rebased({"reason": "lunch", "until": until, "until_boot_s": 1e9})
    assert value["until_boot_s"] == pytest.approx(clock.now() + 600, abs=5)
    assert rebased({"reason": "lunch"}) == {"reason": "lunch"}


def test_a_pause_with_a_time_survives_a_boot(control: Control) -> None:
    control.put_up("paused", "lunch", "test", until=600)
    database, flag = control.database, control.flag("paused")
    assert flag
    other = json.dumps({**flag, "until_boot_s": 1e9})  # as a clock of another boot had it
    update = "update control set value = ? where name = ?"
    for value, name in ((other, "paused"), ("another boot", "boot")):
        database.write(lambda connection, v=value, n=name: connection.execute(update, (v, n)).fetchall())  # type: ignore[misc]
    prepare(database.path)
    again = control.flag("paused")
    assert again
    assert again["until_boot_s"] == pytest.approx(flag["until_boot_s"], abs=5)


def test_a_program_that_is_to_restart_takes_nothing_more(queue: Queue, control: Control) -> None:
    make_ready(queue, "one")
    assert control.ask_restart("inference", "a leak", "test", 41)
    assert not control.ask_restart("inference", "again", "test", 41)
    assert queue.take(GENERATE, "inference/1") is None
    make_ready(queue, "two")  # the others go on
    control.end_restart("inference")
    assert control.restarts() == {}
    assert queue.take(GENERATE, "inference/1")


def test_audit_rows_are_found_by_any_word_and_page_by_page(control: Control) -> None:
    control.note("web:1", "pause", None, "New card", "done")
    control.note_all("cli:root", "retry", {f"job-{number}": "done" for number in range(5)}, "100 % sure")
    assert [note["action"] for note in control.notes(text="new CARD")] == ["pause"]
    assert [note["target"] for note in control.notes(2, "retry")] == ["job-4", "job-3"]
    last = control.notes(2, "retry")[-1]["id"]
    assert [note["target"] for note in control.notes(9, "retry", last)] == ["job-2", "job-1", "job-0"]
    assert len(control.notes(text="100 %")) == 5
    assert control.notes(text="100_%") == []


def test_each_program_takes_down_its_own_word_that_the_worker_is_unfit(queue: Queue, control: Control) -> None:
    make_ready(queue, "one")
    assert control.put_up("unfit", "no weights", "inference")
    assert control.put_up("unfit", "the key may not write", "uploader")
    assert control.flags()["unfit"]["reason"] == "no weights"
    assert control.take_down("unfit", by="inference")
    assert control.flags()["unfit"]["reason"] == "the key may not write"
    assert queue.take(GENERATE, "inference/1") is None
    assert control.take_down("unfit", by="uploader")
    assert control.flags() == {}
    assert queue.take(GENERATE, "inference/1")


def test_a_word_about_oneself_is_dropped_on_a_full_disk_and_costs_no_reserve(control: Control) -> None:
    reserve = control.database.path.with_suffix(".reserve")
    reserve.write_bytes(b"kept")
    control.database.write(lambda connection: connection.execute("pragma max_page_count = 1").fetchall(), durable=False)
    control.publish("inference", {"long": "x" * 100_000})
    assert control.published() == {}
    assert reserve.exists()
