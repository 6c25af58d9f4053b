"""The first process: what it ends with, what it leaves, who may run beside it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from guard.verdict import Verdict, leave
from tests.guard.supervised import DEADLINE_S, start_first, supervised, wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_with_0_and_no_process_left(folder: Path, number: int) -> None:
    with supervised(folder, {"one": "steady.py", "two": "parent.py"}) as worker:
        worker.pid("one"), worker.pid("two")
        wait_for(lambda: len(worker.descendants()) >= 3, "the child of two")
        family = worker.descendants()
        assert worker.stop(number) == 0
        assert [process for process in family if process.is_running()] == []


def test_no_process_leaves_a_core_file(folder: Path) -> None:
    with supervised(folder, {"one": "steady.py"}) as worker:
        worker.pid("one")
        family = [psutil.Process(worker.first.pid), *worker.descendants()]
        assert {process.rlimit(psutil.RLIMIT_CORE) for process in family} == {(0, 0)}


def test_a_program_that_ignores_sigterm_and_its_child_in_another_session_are_ended_too(folder: Path) -> None:
    with supervised(folder, {"deaf": "deaf.py"}, extra="stopwaitsecs=1") as worker:
        worker.pid("deaf")
        wait_for(lambda: len(worker.descendants()) >= 2, "its child")
        family = worker.descendants()
        assert worker.stop() == 0
        assert [process for process in family if process.is_running()] == []


def test_a_program_that_cannot_start_ends_all_with_70_and_the_reason_last(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py", "broken": "broken.py"}) as worker:
        assert worker.first.wait(DEADLINE_S) == 70
        assert "broken failed to start 2 times" in worker.lines[-1]
        assert "RuntimeError: the model is of the wrong shape" in worker.lines[-1]


def test_a_program_that_waits_for_its_next_try_does_not_spoil_a_stop(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py", "broken": "broken.py"}, extra="startretries=20") as worker:
        wait_for(lambda: "try 3 of 21" in worker.output, "a few tries")
        assert worker.stop() == 0


def test_the_verdict_of_the_guard_is_the_end(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        worker.pid("steady")
        leave(folder / "run", Verdict(code=9, reason="the card fell off"))
        assert worker.stop() == 9
        assert worker.lines[-1].endswith("the worker exits: the card fell off")


def test_a_verdict_of_an_earlier_life_is_forgotten(folder: Path) -> None:
    (folder / "run").mkdir()
    leave(folder / "run", Verdict(code=9, reason="long ago"))
    with supervised(folder, {"steady": "steady.py"}) as worker:
        worker.pid("steady")
        assert worker.stop() == 0


def test_a_second_worker_on_the_same_folder_is_refused_with_one_line(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        worker.pid("steady")
        assert start_first(folder).wait(DEADLINE_S) == 2
        assert worker.program("steady") is not None
        lines = (folder / "stderr").read_text().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("DATA_DIR=")


def test_what_programs_print_is_in_one_shape(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py", "broken": "broken.py"}, log_format="json") as worker:
        assert worker.first.wait(DEADLINE_S) == 70
        events = [json.loads(line) for line in worker.lines]
        assert all({"at", "program", "level", "event"} <= event.keys() for event in events)
        assert any(event["program"] == "broken" and "Traceback" in event["event"] for event in events)


def test_a_traceback_is_one_line(folder: Path) -> None:
    with supervised(folder, {"broken": "broken.py"}) as worker:
        worker.first.wait(DEADLINE_S)
        tracebacks = [line for line in worker.lines if "Traceback" in line]
        assert len(tracebacks) == 2
        assert all(line.endswith("RuntimeError: the model is of the wrong shape") for line in tracebacks)


def test_the_death_of_the_first_process_by_sigkill_frees_the_folder(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        left = [psutil.Process(worker.pid("steady"))]
        worker.first.kill()
        worker.first.wait()
        for process in left:  # a real program asks the kernel to die with its parent; this one does not
            process.kill()
    with supervised(folder, {"steady": "steady.py"}) as worker:
        worker.pid("steady")
