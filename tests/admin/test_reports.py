"""What a job's page and the API say of the reports that were sent of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from jobqueue.job import NewJob
from tests.admin.program import PASSWORD, Admin, running
from tests.admin.test_pages import text
from tests.jobqueue.test_outbox import LOST, RUNNING
from tests.patience import PATIENCE_S

LINKS = {"video_url": "https://media.example/face.mp4", "audio_url": "https://media.example/voice.wav"}
ORCHESTRATOR = {"ORCHESTRATOR_BASE_URL": "http://127.0.0.1:9", "WORKER_TYPE": "main"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with running(tmp_path_factory.mktemp("data"), **ORCHESTRATOR) as started:
        yield started


@pytest.fixture(scope="module")
def browser(told: Admin) -> requests.Session:
    return told.log_in()


def add(admin: Admin, job_id: str, source: str = "main") -> None:
    admin.queue.add(NewJob(id=job_id, source=source, engine="musetalk", inputs=LINKS))


def test_what_was_told_of_a_running_job_is_a_line_and_a_table(told: Admin, browser: requests.Session) -> None:
    add(told, "runs")
    assert "Nothing has been reported yet." in text(told, browser, "/jobs/runs")
    told.outbox.keep(replace(RUNNING, job="runs", progress=0.25))
    told.outbox.keep(replace(RUNNING, job="runs", at="2026-01-02T03:04:07.000Z"))
    said = text(told, browser, "/jobs/runs")
    assert "Last reported 2026-01-02 03:04:07 UTC : 50 % inferring. The final report is repeated" in said
    assert "2 reports, newest first" in said
    rows = (
        '01-02 03:04:07 running 50 % inferring 200 after 12 ms: {"detail":"ok"}',
        "01-02 03:04:05 running 25 % inferring 200",
    )
    assert said.index(rows[0]) < said.index(rows[1])


def test_a_report_that_was_not_taken_says_so(told: Admin, browser: requests.Session) -> None:
    add(told, "lost")
    told.outbox.keep(replace(LOST, job="lost", said="running", phase="preparing"))
    said = text(told, browser, "/jobs/lost")
    assert "10 % preparing, not accepted; the next report will follow. The final report is" in said
    assert "One report, newest first" in said
    assert "running 10 % preparing none after 12 ms: no answer within 10 s" in said


def test_each_try_to_tell_an_end_is_in_the_table(told: Admin, browser: requests.Session) -> None:
    add(told, "over")
    told.queue.cancel("over", "not needed")
    event, _ = next(due for due in told.outbox.due() if due[0].job == "over")
    for status in (500, 200):
        told.outbox.keep(replace(LOST, job="over", status=status, words=f"answer {status}"))
    told.outbox.again(event, "progress: HTTP 500: answer 500", 60)
    told.outbox.sent(event, "progress: 200")
    said = text(told, browser, "/jobs/over")
    assert ": progress: 200, after 2 tries" in said
    assert said.index("failed 10 % 200 after 12 ms: answer 200") < said.index("failed 10 % 500 after 12 ms: answer 500")


def test_an_end_that_nobody_wanted_or_that_was_never_told_says_so(told: Admin, browser: requests.Session) -> None:
    add(told, "unwanted")
    told.queue.cancel("unwanted", "not needed")
    told.queue.retry("unwanted")
    told.queue.cancel("unwanted", "again not needed")
    event, _ = next(due for due in told.outbox.due() if due[0].job == "unwanted")
    told.outbox.sent(event, "progress: HTTP 409: no longer yours")
    said = text(told, browser, "/jobs/unwanted")
    assert "Round 1, cancelled: Not reported: a new round started first." in said
    assert re.search("Round 2, cancelled: Reported [^,]+, but no longer wanted: progress: HTTP 409: no longer yours", said)


@pytest.mark.parametrize("source", ["local", "queue"])
def test_a_job_that_nobody_waits_for_says_so(data_dir: Path, source: str) -> None:
    with running(data_dir) as alone:
        add(alone, "alone", source)
        said = text(alone, alone.log_in(), "/jobs/alone")
        assert "No report needed." in said
        assert "newest first" not in said


def test_what_a_server_says_is_text_on_the_page(told: Admin, browser: requests.Session) -> None:
    add(told, "markup")
    words = "<script>alert(1)</script> \x1b[31m \u202e https://media.example/x?sig=hidden"
    told.outbox.keep(replace(LOST, job="markup", status=422, words=words))
    page = browser.get(f"{told.url}/jobs/markup", timeout=PATIENCE_S).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \ufffd[31m \ufffd" in page
    assert "<script>alert" not in page
    assert "sig=hidden" not in page


def test_a_new_report_is_on_the_page_at_the_next_look(told: Admin, browser: requests.Session) -> None:
    add(told, "fresh")
    address = f"{told.url}/jobs/fresh"
    tag = browser.get(address, timeout=PATIENCE_S).headers["ETag"]
    told.outbox.keep(replace(RUNNING, job="another"))
    assert browser.get(address, headers={"If-None-Match": tag}, timeout=PATIENCE_S).status_code == 304
    told.outbox.keep(replace(RUNNING, job="fresh"))
    assert "Last reported" in browser.get(address, headers={"If-None-Match": tag}, timeout=PATIENCE_S).text


def test_programs_get_the_reports_oldest_first(told: Admin) -> None:
    add(told, "api")
    told.outbox.keep(replace(RUNNING, job="api"))
    told.outbox.keep(replace(LOST, job="api", words="see https://media.example/x?sig=hidden"))
    headers = {"Authorization": f"Bearer {PASSWORD}"}
    answer = requests.get(f"{told.url}/api/v1/jobs/api", headers=headers, timeout=PATIENCE_S)
    first, last = answer.json()["reports"]
    assert first == {**vars(RUNNING), "job": "api"}
    assert (last["said"], last["status"], last["words"]) == ("failed", None, "see https://media.example/x?••••")
