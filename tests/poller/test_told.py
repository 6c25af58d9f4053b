"""What is kept of each report, seen from outside: the real poller, the real reference orchestrator, and faults in between."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poller.identity import News
from poller.orchestrator import MAX_WORDS, Orchestrator
from poller.report import Reporting
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import Behaviour, FakeOrchestrator, Heard
from tests.orchestrator.server import KEY, Server
from tests.orchestrator.server import running as serving
from tests.patience import free_port
from tests.poller.house import House, eventually
from tests.poller.test_process import poller

OK = '{"detail":"ok"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("orchestrator"), "--silence-s", "3600") as started:
        yield started


def given(server: Server, house: House, job_id: str, state: str) -> None:
    """A job that the orchestrator gave to us, and how far it is here."""
    server.submit(musetalk_job_id=job_id)
    assert server.claim("w-1")["musetalk_job_id"] == job_id
    house.job(state, job_id)


def behind(server: Server, fault: Callable[[Heard], Behaviour | None]) -> Callable[[Heard], Behaviour]:
    """What meets no fault is passed on to the orchestrator, and its answer back."""

    def script(heard: Heard) -> Behaviour:
        if (behaviour := fault(heard)) is not None:
            return behaviour
        answer = server.post(heard.path, heard.body)
        return behaviours.says_raw(answer.content, answer.status_code)

    return script


def variables(url: str, **more: str) -> dict[str, str]:
    return {"ORCHESTRATOR_BASE_URL": url, "WORKER_TYPE": "main", "WORKER_ID": "w-1", "INTERNAL_API_KEY": KEY, **more}


def kept(house: House, job_id: str) -> list[tuple[str, int | None, str]]:
    return [(report.said, report.status, report.words) for report in house.outbox.reports(job_id)]


def test_a_500_and_the_200_after_it_are_both_kept(house: House, server: Server, fake: FakeOrchestrator) -> None:
    given(server, house, "first-500", "succeeded")
    left = [behaviours.error_page(500)]
    fake.script = behind(server, lambda heard: left.pop() if left and heard.path.endswith("/progress") else None)
    with poller(house, **variables(fake.url)):
        eventually(lambda: house.outbox.waiting() == 0)
    page = "<html><body><h1>nginx</h1></body></html>"
    assert kept(house, "first-500") == [("succeeded", 500, page), ("succeeded", 200, OK)]
    first, second = house.outbox.reports("first-500")
    assert first.at < second.at
    assert min(first.took_ms, second.took_ms) > 0
    assert (first.place, first.progress, first.phase) == ("progress", 1.0, "completed")


def test_a_refused_connection_is_kept_across_a_restart(house: House, server: Server) -> None:
    given(server, house, "refused", "failed")
    with poller(house, **variables(f"http://127.0.0.1:{free_port()}")):
        eventually(lambda: house.outbox.reports("refused"))
    before = kept(house, "refused")
    assert set(before) == {("failed", None, "ConnectionRefusedError: Connection refused")}
    with poller(house, **variables(server.url)):
        eventually(lambda: house.outbox.waiting() == 0)
    assert kept(house, "refused") == [*before, ("failed", 200, OK)]


def test_the_report_that_brought_a_cancel_is_kept_and_the_end_after_it(
    house: House, server: Server, fake: FakeOrchestrator
) -> None:
    given(server, house, "cancelled", "ready")
    server.post("/jobs/cancelled/cancel")
    beats = behaviours.error_page(503)  # they would bring the cancel too
    fake.script = behind(server, lambda heard: beats if heard.path.endswith("/heartbeat") else None)
    with poller(house, **variables(fake.url)):
        eventually(lambda: server.state("cancelled") == "cancelled")
        eventually(lambda: house.outbox.waiting() == 0)
    assert kept(house, "cancelled") == [("running", 200, '{"detail":"ok","cancel":true}'), ("failed", 200, OK)]


def test_a_job_of_many_reports_keeps_the_first_and_the_newest(house: House, server: Server) -> None:
    given(server, house, "long", "ready")
    loop = Reporting(house.queue, house.outbox, Orchestrator(server.url, KEY), house.identity(), News())
    assert {loop.tell_running("long").status for _ in range(60)} == {200}
    first = house.outbox.reports("long")[0]
    loop.tell_running("long")
    reports = house.outbox.reports("long")
    assert (len(reports), reports[0]) == (50, first)
    assert server.state("long") == "running"


def test_a_report_that_was_taken_while_the_program_died_is_sent_again(house: House, server: Server) -> None:
    given(server, house, "died", "succeeded")
    with poller(house, **variables(server.url, KILL_AT="report.before_note")) as process:
        assert process.wait(30) == -signal.SIGKILL
    assert kept(house, "died") == []
    with poller(house, **variables(server.url)):
        eventually(lambda: house.outbox.waiting() == 0)
    assert kept(house, "died") == [("succeeded", 200, OK)]
    assert server.verdicts("died") == ["accepted", "repeated"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<script>alert(1)</script>\n\n<b>no</b>", "<script>alert(1)</script> <b>no</b>"),
        ("\x1b[31mred\x07 \u202etxt.exe\x00".encode(), "\ufffd[31mred\ufffd \ufffdtxt.exe\ufffd"),
        (b"you sent the-secret-key", "you sent ••••"),
        (b"x" * 295 + b"the-secret-key", "x" * 295 + "••••"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"y" * 5000, "y" * MAX_WORDS),
        (b"", "no text"),
    ],
)
def test_words_are_kept_as_they_may_be_shown(house: House, fake: FakeOrchestrator, content: bytes, words: str) -> None:
    house.job("succeeded")
    fake.script = lambda heard: behaviours.says_raw(content, 422)
    Reporting(house.queue, house.outbox, Orchestrator(fake.url, "the-secret-key"), house.identity(), News()).step()
    assert kept(house, "job-1") == [("succeeded", 422, words)]


def test_both_places_that_hear_of_a_buffers_job_are_kept(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", source="buffer", buffer_job_id="b-1")
    Reporting(house.queue, house.outbox, Orchestrator(fake.url, None), house.identity(mode="buffer"), News()).step()
    told: list[Any] = [(report.place, report.said, report.progress, report.phase) for report in house.outbox.reports("job-1")]
    assert told == [("status", "succeeded", None, None), ("progress", "succeeded", 1.0, "completed")]


def test_of_a_job_that_nobody_waits_for_nothing_is_kept(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded", source="local")
    Reporting(house.queue, house.outbox, Orchestrator(fake.url, None), house.identity(), News()).step()
    assert house.outbox.reports("job-1") == []
