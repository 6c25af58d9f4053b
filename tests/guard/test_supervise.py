"""Programs that are killed come back, alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.guard.supervised import supervised, wait_for

#: Far above the tens of milliseconds that it takes; the tests share a small machine.
BACK_S = 5.0


def test_every_killed_program_comes_back(folder: Path) -> None:
    with supervised(folder, {"one": "steady.py", "two": "steady.py"}, guard=True) as worker:
        for name in ("one", "two", "guard"):
            pid = worker.running_pid(name)
            os.kill(pid, signal.SIGKILL)
            worker.pid(name, other_than=pid, timeout_s=BACK_S)
        assert "two was killed by SIGKILL, possibly out of memory" in worker.output
        assert worker.stop() == 0


def test_the_children_of_a_killed_program_die_with_it(folder: Path) -> None:
    with supervised(folder, {"parent": "parent.py"}) as worker:
        pid = worker.pid("parent")
        wait_for(lambda: psutil.Process(pid).children(), "its child")
        child = psutil.Process(pid).children()[0]
        os.kill(pid, signal.SIGKILL)
        worker.pid("parent", other_than=pid)
        wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")


def test_a_frozen_program_that_is_killed_comes_back(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        pid = worker.pid("steady")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it to be frozen")
        os.kill(pid, signal.SIGKILL)
        worker.pid("steady", other_than=pid)


def test_a_frozen_program_does_not_hold_up_the_end(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}, extra="stopwaitsecs=1") as worker:
        os.kill(worker.pid("steady"), signal.SIGSTOP)
        assert worker.stop() == 0


def test_ctrl_c_in_a_terminal_reaches_the_programs_only_through_the_first_process(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        pid = worker.pid("steady")
        assert os.getpgid(pid) != os.getpgid(worker.first.pid)


def test_an_idle_loop_does_not_turn(folder: Path) -> None:
    with supervised(folder, {"steady": "steady.py"}) as worker:
        pid = worker.pid("steady")
        os.kill(pid, signal.SIGKILL)
        worker.pid("steady", other_than=pid)
        process = psutil.Process(worker.first.pid)
        before = process.num_ctx_switches().voluntary
        process_time = process.cpu_times().user
        wait_for(lambda: process.num_ctx_switches().voluntary > before + 2, "a few turns of the loop")
        assert process.cpu_times().user - process_time < 0.5
