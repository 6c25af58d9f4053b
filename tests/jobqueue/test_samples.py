"""What is kept of the GPUs' past, how long, and what becomes of it when clocks jump and files break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqueue import clock
from jobqueue.database import Database
from jobqueue.samples import COLUMNS, KEPT_S, Samples, Writing, card_of

BUSY = {"uuid": "GPU-a", "index": 0, "utilization_gpu": 80, "memory_used_mib": 9000, "throttle_reasons": ["power cap"]}
DUMB = {"uuid": None, "index": 1, "utilization_gpu": None, "temperature_c": 40, "throttle_reasons": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.db"


@pytest.fixture
def now() -> int:
    """The end of a ten-second span, so that what is written lies in whole ones."""
    return int(time.time()) // 10 * 10


@pytest.fixture
def writing(file: Path) -> Iterator[Writing]:
    opened = Writing(file)
    yield opened
    opened.close()


def write(writing: Writing, times: Any, *cards: dict[str, Any]) -> None:
    """Rows of these wall seconds, as if the clock had shown them all along."""
    for at in times:
        change(writing, "update clock set ahead_s = ?", at - clock.now())
        writing.add(cards or (BUSY,), at)


def change(writing: Writing, sql: str, *values: Any) -> None:
    writing._database.write(lambda connection: connection.execute(sql, values).fetchall())


def test_a_reading_that_a_card_does_not_give_stays_null(writing: Writing, file: Path, now: int) -> None:
    write(writing, range(now - 20, now), BUSY, DUMB)
    for step in (1, 10):
        found = Samples(file).columns(now - 21, step)
        assert set(found) == {"GPU-a", "#1"}
        assert set(found["#1"]["load"]) == {None}
        assert set(found["#1"]["temperature_c"]) == {40}
        assert set(found["GPU-a"]["encoder"]) == {None}
        assert {len(column) for column in found["GPU-a"].values()} == {20 if step == 1 else 1}


def test_seconds_are_kept_for_minutes_and_their_means_for_a_day(writing: Writing, file: Path, now: int) -> None:
    for at in range(now - 1230, now):
        if at % 10 < 2 or at > now - 20:
            write(writing, [at], {**BUSY, "utilization_gpu": 100 * (at % 2)})
    found = Samples(file).columns(0, 1)["GPU-a"]
    assert found["at"][0] >= now - 1 - KEPT_S[1]
    coarse = Samples(file).columns(0, 10)["GPU-a"]
    assert coarse["at"] == list(range(now - 1230, now - 10, 10))
    assert set(coarse["load"]) == {50}
    assert Samples(file).columns(0, 60)["GPU-a"]["load"][1:-1] == [50] * (len(Samples(file).columns(0, 60)["GPU-a"]["at"]) - 2)
    write(writing, [now + KEPT_S[10] - 600])
    assert Samples(file)._read("select min(at) as at from sample")[0]["at"] >= now - 610


def test_only_what_is_newer_is_given_again(writing: Writing, file: Path, now: int) -> None:
    write(writing, range(now - 5, now))
    samples = Samples(file)
    assert samples.columns(now - 3, 1)["GPU-a"]["at"] == [now - 2, now - 1]
    assert samples.columns(now, 1) == {}
    assert samples.mark()[0] == now - 1


def test_what_held_the_clocks_back_is_told_as_a_share_of_the_time(writing: Writing, file: Path, now: int) -> None:
    write(writing, range(now - 40, now - 20), {**BUSY, "throttle_reasons": []}, DUMB)
    write(writing, range(now - 20, now + 1), BUSY, DUMB)
    shares = Samples(file).held(now - 3600)
    assert shares == {"GPU-a": {"power cap": 0.5}, "#1": {}}


def test_least_mean_and_most_are_known_of_any_time(writing: Writing, file: Path, now: int) -> None:
    for at in range(now - 10, now):
        write(writing, [at], {**BUSY, "power_w": at - now + 110})
    found = Samples(file).extremes(now - 5, now)["GPU-a"]
    assert (found["power_w_min"], found["power_w_mean"], found["power_w_max"]) == (105, 107, 109)
    assert found["temperature_c_max"] is None


@pytest.mark.parametrize("jump_s", [3600, -3600, 25])
def test_when_the_clock_jumps_the_past_stays_as_long_ago_as_it_was(writing: Writing, file: Path, now: int, jump_s: int) -> None:
    write(writing, range(now - 30, now + 1))
    before = Samples(file).mark()
    writing.add([BUSY], now + 1 + jump_s)
    rows = Samples(file)._read("select step, at from sample order by step, at")
    fine = [row["at"] - now - jump_s for row in rows if row["step"] == 1]
    assert len(fine) == 32
    assert -40 <= fine[0] <= -30
    assert fine[-1] == 1
    assert all(row["at"] % 10 == 0 for row in rows if row["step"] == 10)
    assert Samples(file).mark()[1] == before[1] + 1


def test_after_a_boot_nothing_lies_in_the_future(writing: Writing, file: Path, now: int) -> None:
    write(writing, [now - 1, now, now + 600])
    change(writing, "update clock set boot = 'another'")
    writing.add([BUSY], now + 1)
    assert [row["at"] for row in Samples(file)._read("select at from sample where step = 1")] == [now - 1, now, now + 1]


def test_a_broken_file_is_begun_anew_and_whoever_looked_sees_the_new_one(writing: Writing, file: Path, now: int) -> None:
    write(writing, [now - 1])
    samples = Samples(file)
    assert samples.columns(0, 1)
    writing.close()
    aside = file.with_name("aside")
    file.rename(aside)
    file.write_bytes(b"\xde\xad\xbe\xef" * 4096)
    assert samples.columns(0, 1) == {}
    anew = Writing(file)
    anew.add([BUSY], now)
    assert samples.columns(0, 1)["GPU-a"]["at"] == [now]
    anew.close()


def test_without_a_file_there_is_nothing_and_no_error(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "telemetry.db")
    assert (samples.columns(0, 1), samples.held(0), samples.extremes(0, 9e9), samples.mark()) == ({}, {}, {}, (0, 0))
    assert not list(tmp_path.iterdir())


def test_the_file_is_of_a_known_size(writing: Writing, file: Path, now: int) -> None:
    """A day's rows, written as they would be: a card takes a megabyte and a half, and no more however long it runs."""
    rows = [(step, at, "GPU-" + "0" * 36, *[1.0] * len(COLUMNS))
            for step, kept_s in KEPT_S.items() for at in range(now - kept_s, now, step)]  # fmt: skip
    marks = ", ".join("?" * len(rows[0]))
    writing._database.write(lambda connection: connection.executemany(f"insert into sample values ({marks})", rows))
    pages = Database(file).read("select page_count * page_size as bytes from pragma_page_count, pragma_page_size")
    assert pages[0]["bytes"] < 3e6
    write(writing, [now + 60])
    assert Samples(file)._read("select count(*) as n from sample")[0]["n"] <= 1201 + 8641


def test_a_card_without_a_uuid_goes_by_its_index() -> None:
    assert (card_of(BUSY), card_of(DUMB)) == ("GPU-a", "#1")
