"""What doctor says, on the page and to programs: as on the command line, masked, and one examination for all who ask."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from doctor.apart import MAX_WAITERS
from tests.admin.program import PASSWORD, ROOT, Admin, running
from tests.fakes.file_server import FileServer, Handler
from tests.patience import PATIENCE_S, until


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """A worker with something to complain of, in words that hold a secret."""
    folder = tmp_path_factory.mktemp("data")
    with running(folder, MODELS_DIR=str(folder / "models")) as admin:
        admin.control.put_up("paused", f"<b>lunch</b>, ask for {PASSWORD}", "cli:root")
        yield admin


@pytest.fixture(scope="module")
def browser(paused: Admin) -> requests.Session:
    return paused.log_in()


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_page_has_a_line_for_each_finding_and_says_what_to_do(paused: Admin, browser: requests.Session) -> None:
    answer = browser.get(f"{paused.url}/doctor", timeout=PATIENCE_S)
    assert answer.status_code == 200
    said = words(answer.text)
    assert re.search(r"\d failures?, \d warnings? , \d+ ok\. Checked \S+ \S+ UTC", said), said
    assert re.search(r"fail weights \d+ files that musetalk needs .* To do: worker models pull musetalk \S+ is missing", said)
    assert "warn paused since" in said
    assert "To do: worker resume" in said
    assert PASSWORD not in answer.text
    assert "<b>lunch" not in answer.text


def test_a_page_that_is_left_open_has_nothing_examined(paused: Admin, browser: requests.Session) -> None:
    first = browser.get(f"{paused.url}/doctor", timeout=PATIENCE_S)
    again = browser.get(f"{paused.url}/doctor", headers={"If-None-Match": first.headers["ETag"]}, timeout=PATIENCE_S)
    assert (again.status_code, again.content) == (304, b"")
    paused.control.note("test", "look", None, None, "done")
    later = browser.get(f"{paused.url}/doctor", headers={"If-None-Match": '"another"'}, timeout=PATIENCE_S)
    moment = re.compile(r'<time datetime="([^"]+)">')
    assert moment.findall(later.text)[-1] == moment.findall(first.text)[-1]


def test_programs_get_what_the_command_line_says(paused: Admin) -> None:
    headers = {"Authorization": f"Bearer {PASSWORD}"}
    answer = requests.get(f"{paused.url}/api/v1/doctor", headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert PASSWORD not in answer.text
    environ = {
        **os.environ,
        "DATA_DIR": str(paused.data_dir),
        "ADMIN_PASSWORD": PASSWORD,
        "MODELS_DIR": str(paused.data_dir / "models"),
    }
    command = [sys.executable, "-m", "cli", "doctor", "--json"]
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    here, there = answer.json(), json.loads(told.stdout)
    assert here.keys() == there.keys() == {"ok", "at", "checks"}
    assert here["ok"] is there["ok"] is False
    assert [(check["name"], check.keys()) for check in here["checks"]] == [
        (check["name"], check.keys()) for check in there["checks"]
    ]


def test_while_one_examination_goes_on_nobody_begins_another_or_waits_in_a_long_row(data_dir: Path) -> None:
    leave, asked, answers = threading.Event(), {"Authorization": f"Bearer {PASSWORD}"}, list[requests.Response]()

    def answer(handler: Handler) -> None:
        leave.wait(PATIENCE_S)
        handler.head(404, Content_Length=0)

    with FileServer([answer]) as server, running(data_dir, WORKER_MODE="main", ORCHESTRATOR_BASE_URL=server.url("")) as own:

        def ask() -> None:
            answers.append(requests.get(f"{own.url}/api/v1/doctor", headers=asked, timeout=60))

        browser = own.log_in()
        threads = [threading.Thread(target=ask) for _ in range(MAX_WAITERS + 1)]
        for thread in threads:
            thread.start()
        until(lambda: answers)  # the one for whom there was no place
        assert (answers[0].status_code, answers[0].headers["Retry-After"]) == (503, "5")
        page = browser.get(f"{own.url}/doctor", timeout=PATIENCE_S)
        assert "The checks are running" in page.text
        leave.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert {(one.status_code, one.content) for one in answers[1:]} == {(200, answers[1].content)}
        left_open = browser.get(f"{own.url}/doctor", headers={"If-None-Match": page.headers["ETag"]}, timeout=PATIENCE_S)
        assert "Check again" in left_open.text
    assert len(server.seen) == 1


def test_settings_and_processes_lead_to_it(paused: Admin, browser: requests.Session) -> None:
    for path in ("/settings", "/processes"):
        assert '<a href="/doctor">Doctor</a>' in browser.get(paused.url + path, timeout=PATIENCE_S).text


def test_what_is_safe_is_put_right_from_the_page(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking", ENGINE="preview") as own:
        browser, other = own.log_in(), own.log_in("only for looking")
        assert "Apply safe fixes" not in browser.get(f"{own.url}/doctor", timeout=PATIENCE_S).text
        (data_dir / "jobs.reserve").unlink()
        assert own.post(other, "/doctor/fix") == 403
        assert not (data_dir / "jobs.reserve").exists()
        data = {"csrf": own.form_token(browser)}
        page = words(browser.post(f"{own.url}/doctor/fix", data=data, timeout=PATIENCE_S).text)
        assert "done reserve : the reserve for a full disk has been used, and there is space again. recreated" in page
        assert (data_dir / "jobs.reserve").exists()
        note = own.control.notes(1)[0]
        assert (note["action"], note["target"], note["actor"][:4]) == ("doctor --fix", "reserve", "web:")
        again = words(browser.post(f"{own.url}/doctor/fix", data=data, timeout=PATIENCE_S).text)
        assert "Nothing to fix" in again


def test_the_page_offers_to_put_right_only_what_can_be_and_only_to_who_may(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking", ENGINE="preview") as own:
        (data_dir / "jobs.reserve").unlink()
        assert "Apply safe fixes" in own.log_in().get(f"{own.url}/doctor", timeout=PATIENCE_S).text
        assert "Apply" not in own.log_in("only for looking").get(f"{own.url}/doctor", timeout=PATIENCE_S).text
