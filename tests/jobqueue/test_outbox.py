"""What was said of jobs to the orchestrator: kept for people, within bounds, and never at the cost of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobqueue.database import Database
from jobqueue.job import Report
from jobqueue.outbox import MAX_OF_END, MAX_OF_RUN, MAX_RUNNING, Outbox
from jobqueue.queue import Queue
from jobqueue.statements import MAX_ROUNDS
from tests.jobqueue.conftest import arrival

RUNNING = Report(
    job="a",
    round=1,
    place="progress",
    said="running",
    progress=0.5,
    phase="inferring",
    status=200,
    words='{"detail":"ok"}',
    took_ms=12.5,
    at="2026-01-02T03:04:05.678Z",
)
LOST = replace(RUNNING, said="failed", progress=0.1, phase="failed", status=None, words="no answer within 10 s")


def test_a_report_is_kept_as_it_was_said_and_answered(outbox: Outbox) -> None:
    for report in (RUNNING, LOST, replace(LOST, place="status", progress=None, phase=None)):
        outbox.keep(report)
    assert outbox.reports("a") == [RUNNING, LOST, replace(LOST, place="status", progress=None, phase=None)]
    assert outbox.reports("b") == []


@pytest.mark.parametrize(("report", "most"), [(RUNNING, MAX_OF_RUN), (LOST, MAX_OF_END)])
def test_the_first_and_the_newest_of_a_round_are_kept(outbox: Outbox, report: Report, most: int) -> None:
    another = replace(LOST if report is RUNNING else RUNNING, words="of the other kind")
    others = [replace(report, job="b"), replace(report, round=2, words="of the next round"), another]
    for other in others:
        outbox.keep(other)
    for number in range(most + 30):
        outbox.keep(replace(report, words=str(number)))
    kept = [int(one.words) for one in outbox.reports("a") if one.words.isdigit()]
    assert kept == [0, *range(31, most + 30)]
    assert all(other in outbox.reports(other.job) for other in others)


def test_of_older_jobs_only_the_reports_of_the_end_are_kept(outbox: Outbox) -> None:
    for report in (RUNNING, LOST):
        outbox.keep(report)
    passed = f"update report set id = id + {MAX_RUNNING} where job = 'b'"  # as if so many had been kept since
    outbox.keep(replace(RUNNING, job="b"))
    outbox.database.write(lambda connection: connection.execute(passed).fetchall())
    outbox.keep(replace(RUNNING, job="b"))
    assert [report.said for report in outbox.reports("a")] == ["failed"]
    assert len(outbox.reports("b")) == 2


def test_of_a_job_that_is_sent_again_and_again_only_the_newest_rounds_are_kept(queue: Queue, outbox: Outbox) -> None:
    rounds = range(1, MAX_ROUNDS + 11)
    for number in rounds:
        queue.add(replace(arrival("a"), error={"message": "cannot be run"}))
        outbox.keep(replace(LOST, round=number))
    assert {event.round for event in outbox.history("a")} == set(rounds[10:])
    assert [report.round for report in outbox.reports("a")] == [*rounds[10:]]
    assert [event.round for event, _ in outbox.due()] == [rounds[-1]]


def test_reports_go_with_their_job(queue: Queue, outbox: Outbox) -> None:
    for job_id in ("a", "b"):
        queue.add(arrival(job_id))
        queue.cancel(job_id, "why")
        outbox.keep(replace(LOST, job=job_id))
    outbox.forget(["a"])
    assert (outbox.reports("a"), len(outbox.reports("b"))) == ([], 1)


def test_a_note_that_finds_the_queue_busy_is_dropped(path: Path) -> None:
    impatient, other = Outbox(Database(path, patience_s=0.1)), Database(path)

    def meanwhile(_: object) -> None:
        impatient.keep(RUNNING)

    other.write(meanwhile)
    assert impatient.reports("a") == []
    impatient.keep(RUNNING)
    assert impatient.reports("a") == [RUNNING]


def test_a_full_disk_costs_notes_and_not_the_reserve(path: Path) -> None:
    outbox, most = Outbox(Database(path)), 200
    outbox.database.write(lambda connection: connection.execute("pragma max_page_count = 1").fetchall(), durable=False)
    for number in range(most):
        outbox.keep(replace(RUNNING, job=f"job-{number}", words="x" * 300))
    kept = outbox.database.read("select count(*) as n from report")[0]["n"]
    assert 0 < kept < most
    assert path.with_suffix(".reserve").exists()
