"""The programs' logs as the page reads them: nothing is lost when files are set aside, and nothing but text comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from admin import logs


def say(folder: Path, *events: str, name: str = "inference", **bound: str) -> Path:
    file = folder / f"{name}.log"
    with file.open("a") as log:
        for event in events:
            line = {"at": "2026-01-02T03:04:05Z", "program": name, "level": "info", "event": event, **bound}
            log.write(json.dumps(line) + "\n")
    return file


def same(text: str) -> str:
    return text


def heard(piece: logs.Piece | None) -> list[str]:
    assert piece
    return [line.text for line in piece.lines]


def test_what_follows_a_place_is_read_once(tmp_path: Path) -> None:
    say(tmp_path, "one", "two")
    first = logs.read(tmp_path, "inference", "", same)
    assert heard(first) == ["one", "two"]
    assert first
    assert not first.cut
    assert heard(logs.read(tmp_path, "inference", first.after, same)) == []
    say(tmp_path, "three")
    assert heard(logs.read(tmp_path, "inference", first.after, same)) == ["three"]


def test_a_line_that_is_half_written_is_left_for_later(tmp_path: Path) -> None:
    file = say(tmp_path, "one")
    with file.open("a") as log:
        log.write('{"event": "tw')
        log.flush()
        first = logs.read(tmp_path, "inference", "", same)
        assert heard(first) == ["one"]
        log.write('o"}\n')
    assert first
    assert heard(logs.read(tmp_path, "inference", first.after, same)) == ["two"]


def test_a_file_that_is_set_aside_is_read_to_its_end_first(tmp_path: Path) -> None:
    file = say(tmp_path, "one")
    first = logs.read(tmp_path, "inference", "", same)
    assert first
    say(tmp_path, "two")
    file.rename(tmp_path / "inference.log.1")
    say(tmp_path, "three")
    second = logs.read(tmp_path, "inference", first.after, same)
    assert heard(second) == ["two"]
    assert second
    assert heard(logs.read(tmp_path, "inference", second.after, same)) == ["three"]


def test_a_file_that_is_gone_is_begun_anew_and_that_is_said(tmp_path: Path) -> None:
    file = say(tmp_path, "one")
    first = logs.read(tmp_path, "inference", "", same)
    assert first
    file.rename(tmp_path / "aside")  # so that its inode is not given to the next
    say(tmp_path, "two")
    again = logs.read(tmp_path, "inference", first.after, same)
    assert again
    assert (heard(again), again.cut) == (["two"], True)


def test_one_look_reads_no_more_than_its_share(tmp_path: Path) -> None:
    say(tmp_path, *(f"line {number:05} {'x' * 200}" for number in range(2000)))
    first = logs.read(tmp_path, "inference", "", same)
    assert first
    assert first.cut
    assert first.lines[-1].text.startswith("line 01999")
    assert sum(len(line.text) for line in first.lines) < logs.MAX_BYTES
    inode = (tmp_path / "inference.log").stat().st_ino
    seen, place = [], f"{inode}-0"
    while lines := heard(piece := logs.read(tmp_path, "inference", place, same)):
        assert piece
        seen += [line[:10] for line in lines]
        place = piece.after
    assert seen == [f"line {number:05}" for number in range(2000)]


def test_a_line_of_ten_megabytes_is_passed_over(tmp_path: Path) -> None:
    say(tmp_path, "before", "x" * 10_000_000, "after")
    seen, place = [], f"{(tmp_path / 'inference.log').stat().st_ino}-0"
    while lines := heard(piece := logs.read(tmp_path, "inference", place, same)):
        assert piece
        seen += lines
        place = piece.after
    assert seen == ["before", "(a line longer than 64 KB was left out)", "after"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("10 %\r20 %\r100 %", "100 %"),
        ("windows\r\nline", "windows\nline"),
        ("evil \u202e\x00\x08 text", "evil \ufffd\ufffd\ufffd text"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(tmp_path: Path, raw: str, shown: str) -> None:
    say(tmp_path, raw)
    assert heard(logs.read(tmp_path, "inference", "", same)) == [shown]


def test_secrets_are_masked_once_more(tmp_path: Path) -> None:
    say(tmp_path, "the key is canary", job="canary")
    (tmp_path / "inference.log").open("a").write("not JSON: canary\n")
    piece = logs.read(tmp_path, "inference", "", lambda text: text.replace("canary", "••••"))
    assert heard(piece) == ["the key is ••••  [job=••••]", "not JSON: ••••"]


@pytest.mark.parametrize("name", ["../secret", "nobody", "", "Inference", "inference.log", "a/b", "x" * 99])
def test_only_logs_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.log").write_text("no\n")
    assert logs.read(tmp_path / "logs", name, "", same) is None


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no\n")
    (tmp_path / "inference.log").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "poller.log")
    for name in ("inference", "poller"):
        assert logs.read(tmp_path, name, "", same) is None


@pytest.mark.parametrize("place", ["x", "-1--1", "1-", "99999999999999999999999-1", "1-1.5", "٣-٣"])
def test_a_place_that_makes_no_sense_is_as_none(tmp_path: Path, place: str) -> None:
    say(tmp_path, "one")
    assert heard(logs.read(tmp_path, "inference", place, same)) == ["one"]


def test_the_lines_about_a_job_come_from_all_programs_in_order(tmp_path: Path) -> None:
    say(tmp_path, "rendered", job='odd "id"')
    say(tmp_path, "another", job="other")
    say(tmp_path, 'it only names odd "id"')
    say(tmp_path, "fetched", name="poller", job='odd "id"', at="2026-01-02T03:04:04Z")
    piece = logs.of_job(tmp_path, 'odd "id"', same)
    assert [line.text.split("  [")[0] for line in piece.lines] == ["fetched", "rendered"]
    assert not piece.cut
    assert [line.text.split("  [")[0] for line in logs.of_job(tmp_path, 'odd "id"', same, 1).lines] == ["rendered"]
