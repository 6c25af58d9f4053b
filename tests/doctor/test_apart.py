"""An examination in a process of its own: one at a time, nobody is held up, and a crash is a finding."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from doctor.apart import MAX_WAITERS, Doctor, examined
from tests.patience import PATIENCE_S, until

#: Notes that it was begun, waits for leave, and answers.
SLOW = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
number = len(list(folder.glob("begun-*")))
(folder / f"begun-{number}").touch()
while not (folder / "leave").exists():
    time.sleep(0.01)
print('{"ok": true, "at": "then", "checks": [], "number": %d}' % number, flush=True)
time.sleep(600)
"""


def slow(folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-c", SLOW, str(folder))


def begun(folder: Path) -> int:
    return len(list(folder.glob("begun-*")))


def test_all_who_ask_at_once_get_one_examination(tmp_path: Path) -> None:
    doctor, found = Doctor(slow(tmp_path)), list[Any]()
    threads = [threading.Thread(target=lambda: found.append(doctor.found(60, PATIENCE_S))) for _ in range(MAX_WAITERS - 1)]
    for thread in threads:
        thread.start()
    until(lambda: begun(tmp_path))
    assert doctor.found(60, 0.01) is None
    assert doctor.last() is None
    (tmp_path / "leave").touch()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [each["number"] for each in found] == [0] * (MAX_WAITERS - 1)
    assert begun(tmp_path) == 1


def test_what_was_found_is_good_for_a_while_and_kept_for_ever(tmp_path: Path) -> None:
    (tmp_path / "leave").touch()
    doctor = Doctor(slow(tmp_path))
    first = doctor.found(60, PATIENCE_S)
    assert first
    assert doctor.found(60, PATIENCE_S) == first
    again = doctor.found(0, PATIENCE_S)
    assert again
    assert again["number"] == 1
    assert doctor.last() == again


def test_no_more_wait_than_there_are_places(tmp_path: Path) -> None:
    doctor = Doctor(slow(tmp_path))
    ended = threading.Event()

    def ask() -> None:
        doctor.found(60, PATIENCE_S)
        ended.set()

    threads = [threading.Thread(target=ask) for _ in range(MAX_WAITERS + 1)]
    for thread in threads:
        thread.start()
    assert ended.wait(PATIENCE_S)  # one too many: it got nothing, at once
    until(lambda: sum(thread.is_alive() for thread in threads) == MAX_WAITERS)
    (tmp_path / "leave").touch()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_an_examination_that_crashes_is_a_finding() -> None:
    found = examined((sys.executable, "-c", "import os; os.abort()"))
    assert found["ok"] is False
    (check,) = found["checks"]
    assert check["level"] == "fail"
    assert check["said"] == "the examination exited without a result, code -6"
