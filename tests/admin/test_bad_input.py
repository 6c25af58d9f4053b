"""What strangers, drivers and clocks can do to the pages: they are made all the same, in plain words and in time."""

from __future__ import annotations

import csv
import html
import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from admin import hints, words
from jobqueue.job import FETCH, GENERATE
from jobqueue.queue import Queue
from tests.admin.program import Admin, add_failed, arrival, running
from tests.patience import PATIENCE_S

EVIL = "\"><script>alert(1)</script>'\x1b[31m\u202e\u2066\x00evil\x85"
HUGE = 10_000_000


def get(admin: Admin, browser: requests.Session, path: str) -> requests.Response:
    answer = browser.get(admin.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200, (path, answer.status_code)
    return answer


@pytest.fixture(scope="module")
def hostile(admin: Admin) -> Admin:
    """Jobs whose every text is as bad as it can be."""
    error = {"message": EVIL + "x" * HUGE, "error_type": EVIL, "retryable": True, "stage": EVIL, "details": {EVIL: EVIL * 1000}}
    add_failed(admin.queue, "huge", {**error, "stack_trace": ("y" * 99 + "\n") * (HUGE // 100)})
    for number in range(24):
        add_failed(admin.queue, f"large-{number}", {**error, "message": EVIL + "z" * 200_000, "stack_trace": ""})
    admin.queue.add(replace(arrival(EVIL.replace("\x00", "")), params={EVIL: [EVIL]}, source="main"))
    admin.queue.cancel(EVIL.replace("\x00", ""), "=cmd|' /C calc'!A0")
    return admin


def test_texts_are_shown_as_what_they_are_and_cut(hostile: Admin, browser: requests.Session) -> None:
    odd = f"/jobs/{quote(EVIL.replace(chr(0), ''), safe='')}"
    for path in ("/", "/jobs", "/jobs?state=failed", "/jobs/huge", odd, f"/jobs?q={quote(EVIL)}", "/gpu", "/export/jobs.json"):
        text = get(hostile, browser, path).text
        assert "<script>alert" not in text or path.startswith("/export"), path
        assert not set("\x1b\u202e\u2066\x00\x85") & set(text), path
        assert len(text) < 200_000, path


def test_an_error_of_ten_megabytes_is_told_by_its_beginning(hostile: Admin, browser: requests.Session) -> None:
    text = get(hostile, browser, "/jobs/huge").text
    assert "… (the first 4,000 of 10,000,0" in text
    assert "… (the first 20,000 of 10,000,000 characters)" in text
    assert "an error text of 20" in html.unescape(get(hostile, browser, "/jobs?q=huge").text)


def test_a_spreadsheet_takes_no_text_for_a_formula(hostile: Admin, browser: requests.Session) -> None:
    rows = list(csv.DictReader(io.StringIO(get(hostile, browser, "/export/jobs.csv?state=cancelled").text)))
    assert [row["message"] for row in rows] == ["'=cmd|' /C calc'!A0"]
    assert get(hostile, browser, "/export/jobs.csv").headers["Content-Disposition"] == 'attachment; filename="jobs.csv"'
    found = get(hostile, browser, "/export/jobs.json?state=failed&q=large").json()
    assert len(found) == 24
    assert {len(row["message"]) for row in found} <= {len("an error text of 200161 bytes"), 500}
    assert browser.get(f"{hostile.url}/export/jobs.xml", timeout=PATIENCE_S).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=nan,nan",
        "after=inf,1",
        "after=1e400,5",
        "after=-1,-1",
        "sort=",
        "when=1y",
        "kind=' or 1=1",
        "q=" + "q" * 3000,
    ],
)
def test_odd_filters_count_as_absent(hostile: Admin, browser: requests.Session, query: str) -> None:
    for path in ("/jobs", "/export/jobs.json"):
        assert browser.get(f"{hostile.url}{path}?{query}&sort=slowest", timeout=PATIENCE_S).status_code == 200


def shifted(queue: Queue, job_id: str, hours: float) -> None:
    """As if the clock had been so far off when the job's rows were written."""
    at = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for sql in (
        "update job set created_at = :at, started_at = iif(started_at is null, null, :at), updated_at = :at where id = :id",
        "update event set at = :at where job = :id and id % 2",
    ):
        queue.database.write(lambda connection, sql=sql: list(connection.execute(sql, {"at": at, "id": job_id})))  # type: ignore[misc]


def test_a_clock_an_hour_off_makes_no_time_negative(data_dir: Path) -> None:
    with running(data_dir) as own:
        add_failed(own.queue, "ahead", {"message": "no", "error_type": "unknown_error"})
        add_failed(own.queue, "behind", {"message": "no", "error_type": "unknown_error"})
        own.queue.add(arrival("runs"))
        for stage in (FETCH, GENERATE):
            job = own.queue.take(stage, f"{stage.program}/test")
            assert job
            if stage is FETCH:
                own.queue.done(stage, job, {})
            else:
                own.queue.progress(job, "inferring", 0.5, 5, 10)
        for job_id, hours in (("ahead", 1), ("runs", 1), ("behind", -1)):
            shifted(own.queue, job_id, hours)
        browser = own.log_in()
        for path in (
            "/",
            "/jobs",
            "/jobs?sort=slowest",
            "/jobs/ahead",
            "/jobs/behind",
            "/jobs/runs",
            "/gpu",
            "/export/jobs.csv",
        ):
            text = re.sub(r"<[^>]+>", " ", get(own, browser, path).text)
            assert not re.search(r"(?<![\w-])-\d", text), (path, text)


@pytest.mark.parametrize(
    ("message", "tip"),
    [
        ("CUDA out of memory. Tried to allocate 1.1 GiB", "BATCH_SIZE"),
        ("no face found in the video", "face from the front"),
        ("video_url: the server answered 403", "expired"),
        ("video_url: the server answered 404", "dead"),
        ("moov atom not found", "truncated"),
        ("the latents are NaN", "weights"),
        ("[Errno 28] No space left on device", "Free some space"),
        ("B2 answered 429 too many requests", "rate-limiting"),
        ("B2: the key is not authorized", "B2_KEY_ID"),
        ("FileNotFoundError: unet.safetensors", "models pull"),
        ("the NVIDIA driver on your system is too old", "Update it"),
        ("the job was stuck: it did not move for 300 s", "JOB_TIMEOUT_SEC"),
        ("CUDA error: device-side assert triggered", "card failed"),
        ("inference died 3 times while working on this job", "crashes the program"),
        ("a banana", None),
    ],
)
def test_known_errors_have_a_tip(message: str, tip: str | None) -> None:
    found = hints.hint({"message": message})
    assert tip in found if found and tip else found == tip, found


def test_a_text_is_cut_with_how_much_there_is() -> None:
    assert words.cut("abc", 3) == "abc"
    assert words.cut("abcd", 3) == "abc… (the first 3 of 4 characters)"
