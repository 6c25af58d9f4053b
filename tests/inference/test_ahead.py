"""The job that waits is prepared while another one is on the GPU: the real program, with an engine that notes what it does."""

from __future__ import annotations

import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import OutOfMemory
from inference.ahead import Ahead
from inference.engine import Inputs, Progress
from jobqueue import migrations, spool
from jobqueue.database import Database
from jobqueue.job import GENERATE
from jobqueue.queue import Queue
from tests.fakes.engines import copies
from tests.inference.test_program import add, running
from tests.patience import until

ENGINE = "tests.fakes.engines.prepares"


def ledger(data_dir: Path) -> list[str]:
    """What was done, in order: "a prepare begins", "a begin" …"""
    file = data_dir / "ledger"
    lines = file.read_text().splitlines() if file.exists() else []
    names = {spool.folder(data_dir, job_id).name: job_id for job_id in "abc"}
    said = [line.split(" ", 3)[2:] for line in lines]
    return [f"{names[folder]} {what}" for folder, what in said]


def test_the_next_job_is_prepared_beside_the_running_one_and_only_once(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=2)
        program.add("b")
        program.wait("generated", job_id="b")
    done = ledger(tmp_path)
    assert done.index("b prepare ends") < done.index("a end") < done.index("b begin")
    assert done.count("b prepare begins") == 1


@pytest.mark.slow
def test_a_job_whose_turn_comes_early_waits_for_the_rest_of_its_preparation(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=0.5)
        program.add("b", prepare_s=2)
        assert program.wait("generated", job_id="b").attempt == 0
    assert ledger(tmp_path).count("b prepare begins") == 1


def test_who_waits_hears_of_a_preparation_that_says_the_same_again_and_again(tmp_path: Path) -> None:
    """Encoding a prompt on a processor has no count; without a word for long, the process would end itself."""
    migrations.prepare(tmp_path / "jobs.db")
    queue, over = Queue(Database(tmp_path / "jobs.db")), threading.Event()
    add(queue, tmp_path, "a")
    add(queue, tmp_path, "b")
    queue.take(GENERATE, "inference/1")

    class Slow(copies.Engine):
        prepares_ahead = True

        def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Inputs:
            while not over.wait(0.02):
                progress("preparing", 0, 1)
            return inputs

    ahead = Ahead(queue, tmp_path)
    ahead.begin(Slow())
    assert ahead._look(threading.Event()) is not None
    job = queue.get("b")
    assert job is not None
    heard: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        heard.append((done, total))
        if len(heard) == 3:
            over.set()

    assert isinstance(ahead.take(job, report), Inputs)
    assert heard == [(0, 1)] * 3


def test_bad_input_found_ahead_costs_its_own_job_only_and_is_found_once(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=1)
        program.add("b", fails="input")
        error = program.wait("failed", job_id="b").error
        assert program.job("a").state == "generated"
    assert error is not None
    assert (error["error_type"], error["message"]) == ("media_error", "no face found")
    assert ledger(tmp_path).count("b prepare begins") == 1


@pytest.mark.slow
def test_what_found_no_room_beside_the_other_job_is_prepared_again_in_its_own_turn(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=1)
        program.add("b", fails="room")
        program.wait("generated", job_id="b")
    assert ledger(tmp_path).count("b prepare begins") == 2


def test_a_job_that_is_cancelled_meanwhile_holds_nobody_up(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=2)
        program.add("b", prepare_s=600)
        until(lambda: "b prepare begins" in ledger(tmp_path))
        program.queue.cancel("b", "not needed")
        program.add("c")
        program.wait("generated", job_id="c")
        assert program.job("b").state == "cancelled"


def test_a_job_cancelled_while_it_waits_for_its_preparation_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=0.5)
        program.add("b", prepare_s=600)
        program.wait("generating", job_id="b")
        program.queue.cancel("b", "not needed")
        program.wait("cancelled", job_id="b")


def test_the_program_ends_in_order_while_it_prepares_ahead(tmp_path: Path) -> None:
    with running(tmp_path, ENGINE) as program:
        program.add("a", generate_s=1)
        program.add("b", prepare_s=600)
        until(lambda: "b prepare begins" in ledger(tmp_path))
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(20) == 0
        assert program.job("b").state == "ready"


class Crowded(copies.Engine):
    """Finds no room beside the running job when it has already put something large on the card."""

    prepares_ahead = True
    large: Any = None

    def prepare(self, inputs: Inputs, params: dict[str, Any], progress: Progress) -> Inputs:
        tensor = np.zeros(1 << 20)
        self.large = weakref.ref(tensor)
        try:
            raise RuntimeError("CUDA error: out of memory")
        except RuntimeError as error:
            raise OutOfMemory("no room") from error


def test_what_found_no_room_leaves_nothing_on_the_card_until_its_own_turn(tmp_path: Path) -> None:
    migrations.prepare(tmp_path / "jobs.db")
    database = Database(tmp_path / "jobs.db")
    queue, engine, stop = Queue(database), Crowded(), threading.Event()
    for job_id in "ab":
        add(queue, tmp_path, job_id)
    queue.take(GENERATE, "inference/test")
    ahead = Ahead(queue, tmp_path)
    ahead.begin(engine)
    loop = threading.Thread(target=ahead.loop, args=(stop,))
    loop.start()
    try:
        until(lambda: engine.large is not None and engine.large() is None)
        error = ahead._coming and ahead._coming.prepared.exception()
        assert isinstance(error, OutOfMemory)
        assert (error.message, str(error.__cause__)) == ("no room", "CUDA error: out of memory")
    finally:
        stop.set()
        queue.bell.ring()
        loop.join()
        database.close()
