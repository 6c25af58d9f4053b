"""A queue that cannot be used: the page says so in words, never as a crash, and works again by itself when it can."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest
import requests

from jobqueue import migrations
from tests.admin.program import PASSWORD, ROOT, Admin, arrival, running
from tests.patience import PATIENCE_S, until

PAGES = ("/", "/jobs", "/jobs/waiting-1", "/gpu", "/processes", "/settings", "/audit", "/submit", "/bundle", "/api/v1/status")


@pytest.fixture
def own(data_dir: Path) -> Iterator[Admin]:
    with running(data_dir) as started:
        started.queue.add(arrival("waiting-1"))
        yield started


def words(answer: requests.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def looks(own: Admin, browser: requests.Session, path: str) -> requests.Response:
    return browser.get(own.url + path, allow_redirects=False, timeout=PATIENCE_S)


def test_while_another_holds_the_queue_pages_are_shown_and_actions_give_up(own: Admin) -> None:
    browser = own.log_in()
    token = own.form_token(browser)
    other = apsw.Connection(str(own.data_dir / "jobs.db"))
    other.execute("begin exclusive")
    try:
        for path in PAGES:
            assert looks(own, browser, path).status_code == 200, path
        data = {"csrf": token, "reason": "lunch"}
        refused = browser.post(f"{own.url}/pause", data=data, allow_redirects=False, timeout=PATIENCE_S)
        assert refused.status_code == 503
        assert "The queue is unavailable" in words(refused)
        assert refused.headers["Retry-After"]
    finally:
        other.execute("rollback")
        other.close()
    assert own.control.flag("paused") is None
    assert own.post(browser, "/pause", reason="lunch") == 303


@pytest.mark.parametrize("harm", ["gone", "garbage", pytest.param("empty", marks=pytest.mark.slow)])
def test_a_queue_that_is_lost_is_said_in_words_and_ends_nothing(own: Admin, harm: str) -> None:
    browser, file = own.log_in(), own.data_dir / "jobs.db"
    own.queue.database.close()
    for part in own.data_dir.glob("jobs.db*"):
        shutil.copy(part, own.data_dir / f"kept-{part.name}")
    for part in own.data_dir.glob("jobs.db-*"):
        part.unlink()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(b"garbage!" * 4096 if harm == "garbage" else b"")

    def is_said(_: int = 0) -> bool:
        answer = requests.get(f"{own.url}/jobs", cookies=browser.cookies, allow_redirects=False, timeout=PATIENCE_S)
        assert answer.status_code in (200, 303, 503), answer.text
        assert "Traceback" not in answer.text
        return "The queue is unavailable" in words(answer)

    with ThreadPoolExecutor(8) as many:  # a thread of the page that has the file open does not notice that it is gone
        until(lambda: any(many.map(is_said, range(8))))
    api = requests.get(f"{own.url}/api/v1/status", headers={"Authorization": f"Bearer {PASSWORD}"}, timeout=PATIENCE_S)
    assert api.status_code in (200, 503)
    assert requests.get(f"{own.url}/healthz", timeout=PATIENCE_S).json() == {"status": "ok"}
    assert own.process.poll() is None


@pytest.mark.parametrize(
    ("version", "line"),
    [
        (migrations.VERSION + 1, f"has version {migrations.VERSION + 1}, this program supports {migrations.VERSION}"),
        (None, "no queue yet"),
    ],
)
def test_a_queue_of_another_version_is_refused_at_the_start(data_dir: Path, version: int | None, line: str) -> None:
    if version is not None:
        migrations.prepare(data_dir / "jobs.db")
        connection = apsw.Connection(str(data_dir / "jobs.db"))
        connection.execute(f"pragma user_version = {version}")
        connection.close()
    environ = {"PATH": "/usr/bin", "DATA_DIR": str(data_dir), "ADMIN_PASSWORD": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-m", "admin"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_job_texts_of_any_kind_are_shown_as_text(own: Admin) -> None:
    evil = "\x00\x1b[31m\u202e\u2066<script>alert(1)</script>'\";--\ud7ff\U0001f600" + "x" * 10_000_000
    own.queue.cancel("waiting-1", evil)
    own.control.put_up("paused", evil[:500], evil[:100])
    browser = own.log_in()
    for path in PAGES:
        answer = looks(own, browser, path)
        assert answer.status_code == 200, path
        assert len(answer.content) < 500_000 or path in ("/jobs/waiting-1", "/bundle", "/api/v1/status"), path
        if "json" not in answer.headers["Content-Type"]:
            assert "<script>alert" not in answer.text, path
            assert not {"\x00", "\x1b", "\u202e", "\u2066"} & set(answer.text), path
