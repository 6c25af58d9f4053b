from __future__ import annotations

import threading

import pytest

from jobqueue import clock
from jobqueue.control import Control, Flag
from jobqueue.database import CommitUncertain
from poller.ask import Ask
from poller.identity import News
from poller.orchestrator import Orchestrator
from poller.report import Reporting
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import FakeOrchestrator
from tests.poller.house import House


def ask(house: House, fake: FakeOrchestrator) -> Ask:
    orchestrator = Orchestrator(fake.url, None, timeout_s=2)
    return Ask(house.queue, house.control, Reporting(house.queue, house.outbox, orchestrator, house.identity(), News()))


def test_a_job_that_is_no_longer_ours_is_cancelled_and_the_others_go_on(house: House, fake: FakeOrchestrator) -> None:
    house.job("ready", "lost")
    house.job("ready", "ours")
    fake.script = lambda heard: behaviours.says({}, 409) if "lost" in heard.path else None
    ask(house, fake).ask(threading.Event())
    lost, ours = house.queue.get("lost"), house.queue.get("ours")
    assert lost is not None
    assert ours is not None
    assert (lost.state, ours.state) == ("cancelled", "ready")
    assert (lost.cancel_reason or "").startswith("gone: HTTP 409")


def test_the_gpu_holds_while_jobs_are_asked_after_and_no_longer(house: House, fake: FakeOrchestrator) -> None:
    house.job("generating")
    held = []

    def script(heard: object) -> behaviours.Behaviour:
        held.append("hold" in house.control.flags())
        return behaviours.says({"detail": "ok"})

    fake.script = script
    ask(house, fake).ask(threading.Event())
    assert held == [True]
    assert house.control.flags() == {}


def test_an_orchestrator_that_does_not_answer_is_asked_again(house: House, fake: FakeOrchestrator) -> None:
    house.job("generating")
    fake.script = lambda heard: behaviours.drops() if len(fake.heard) < 2 else None
    ask(house, fake).ask(threading.Event())
    assert len(fake.heard) == 2


def test_a_hold_that_cannot_be_taken_down_is_over_in_time(house: House, fake: FakeOrchestrator) -> None:
    class Full(Control):
        def take_down(self, name: Flag, by: str = "") -> bool:
            raise CommitUncertain("the disk is full")

    reporting = Reporting(house.queue, house.outbox, Orchestrator(fake.url, None), house.identity(), News())
    with pytest.raises(CommitUncertain):
        Ask(house.queue, Full(house.queue.database), reporting).ask(threading.Event())
    hold = house.control.flag("hold")
    assert hold
    assert hold["until_boot_s"] <= clock.now() + 60


def test_a_stop_ends_the_asking_and_the_hold(house: House, fake: FakeOrchestrator) -> None:
    house.job("generating")
    fake.script = lambda heard: behaviours.drops()
    stop = threading.Event()
    stop.set()
    ask(house, fake).ask(stop)
    assert house.control.flags() == {}
