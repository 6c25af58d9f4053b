"""Settings, log-ins, audit trail and support bundle from outside."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import zipfile
from pathlib import Path

import requests

import settings
from admin import audit, shown
from entrance import login_hash
from jobqueue.database import Database
from jobqueue.migrations import prepare
from tests.admin import world
from tests.admin.program import Admin, add_failed, arrival, running
from tests.patience import PATIENCE_S

ERROR = {"message": "it broke", "error_type": "processing_error", "retryable": True, "stage": "inference"}


def words(admin: Admin, browser: requests.Session, path: str) -> str:
    answer = browser.get(admin.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


# ---- settings ---------------------------------------------------------------------------------------------------------------


def test_what_changed_since_the_last_start_is_kept(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")
    database, base = Database(tmp_path / "jobs.db"), {"DATA_DIR": str(tmp_path), "WORKER_ID": "w"}
    shown.remember(settings.load(base), database)
    assert shown.changes(database) == (None, [])
    shown.remember(settings.load({**base, "POLL_INTERVAL_SEC": "2", "API_TOKEN": "one-long-token-1"}), database)
    for _ in range(2):  # a start that changes nothing leaves it standing
        shown.remember(settings.load({**base, "POLL_INTERVAL_SEC": "2", "API_TOKEN": "one-long-token-1"}), database)
    since, changes = shown.changes(database)
    assert since
    assert changes == [("POLL_INTERVAL_SEC", "5", "2.0"), ("API_TOKEN", "not set", "set, ends in -1")]
    kept = database.read("select value from control where name like 'settings %'")
    assert "one-long-token" not in str(kept)


def test_the_page_shows_settings_versions_and_log_ins(data_dir: Path) -> None:
    with running(data_dir):
        pass
    with running(data_dir, POLL_INTERVAL_SEC="2") as own:
        own.control.publish("inference", {"engine": "musetalk", "model_loaded": True})
        own.control.publish("poller", {"gpus": [{"name": "RTX 3090", "driver": "570.1"}]})
        browser = own.log_in()
        browser.headers["User-Agent"] = "Test/1.0 <b>"
        said = words(own, browser, "/settings")
    for sentence in (
        "POLL_INTERVAL_SEC 5 → 2.0",
        "POLL_INTERVAL_SEC 2.0 env 5 Seconds between claims while the worker has capacity.",
        "127.0.0.1 this one",
        f"worker {settings.VERSION}",
        "engine musetalk",
        "GPU driver 570.1",
        "weights 0 of ",
    ):
        assert sentence in said, said
    assert "a long password" not in said


def test_signing_out_everywhere_ends_every_log_in(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking") as own:
        browsers = [own.log_in(), own.log_in(), own.log_in("only for looking")]
        assert own.post(browsers[0], "/settings/sign-out") == 303
        for browser in browsers:
            assert browser.get(f"{own.url}/", allow_redirects=False, timeout=PATIENCE_S).status_code == 303
        assert own.control.notes(1)[0]["action"] == "sign out everywhere"


def test_a_new_link_is_shown_once_and_logs_in_once(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        data = {"csrf": own.form_token(browser)}
        page = browser.post(f"{own.url}/settings/login-link", data=data, timeout=PATIENCE_S).text
        code = re.search(r"/login#code=([2-9A-Z]{4}-[2-9A-Z]{4})", page)
        assert code
        assert code[1] not in (data_dir / "said").read_text()
        assert not own.control.use_login(login_hash("AAAA-AAAA"), 0)
        own.log_in(code[1])
        again = requests.post(f"{own.url}/login", headers={"Origin": own.url}, data={"password": code[1]}, timeout=PATIENCE_S)
        assert again.status_code == 403


def test_the_token_is_replaced_from_the_page_once_that_was_typed(data_dir: Path) -> None:
    with running(data_dir, ADMIN_PASSWORD="") as own:
        old = (data_dir / "admin_token").read_text().strip()
        browser, other = own.log_in(old), own.log_in(old)
        assert "Type replace to confirm" in words(own, browser, "/settings")
        assert own.post(browser, "/settings/token", confirm="yes") == 400
        assert (data_dir / "admin_token").read_text().strip() == old
        data = {"csrf": own.form_token(browser), "confirm": "replace"}
        page = browser.post(f"{own.url}/settings/token", data=data, timeout=PATIENCE_S)
        new = (data_dir / "admin_token").read_text().strip()
        assert f'<code id="token">{new}</code>' in page.text
        assert page.headers["Cache-Control"] == "no-store"
        assert new != old
        for ended in (browser, other):
            assert ended.get(f"{own.url}/", allow_redirects=False, timeout=PATIENCE_S).status_code == 303
        refused = requests.post(f"{own.url}/login", {"password": old}, headers={"Origin": own.url}, timeout=PATIENCE_S)
        assert refused.status_code == 403
        own.control.put_up("paused", f"the token is {new}", "test")
        after = own.log_in(new)
        assert new not in after.get(f"{own.url}/", timeout=PATIENCE_S).text
        assert re.search(r"UTC web:[0-9a-f]{8}@127\.0\.0\.1 replace the token done", words(own, after, "/audit"))
        assert new not in (data_dir / "said").read_text()


def test_a_password_of_the_environment_is_not_replaced_from_the_page(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking") as own:
        browser = own.log_in()
        said = words(own, browser, "/settings")
        assert "The password is ADMIN_PASSWORD , from the worker's environment. To replace it, change the variable" in said
        assert "Replace the token" not in said
        assert own.post(browser, "/settings/token", confirm="replace") == 409
        assert browser.get(f"{own.url}/", allow_redirects=False, timeout=PATIENCE_S).status_code == 200
        assert not (data_dir / "admin_token").exists()
        assert own.post(own.log_in("only for looking"), "/settings/token", confirm="replace") == 403


# ---- audit ------------------------------------------------------------------------------------------------------------------


def test_the_audit_trail_says_who_did_what_why_from_where(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        own.queue.add(arrival("job-1"))
        own.post(browser, "/jobs/job-1/cancel", reason="sent by mistake")
        said = words(own, browser, "/audit")
        assert re.search(r"UTC web:[0-9a-f]{8}@127\.0\.0\.1 cancel job-1 sent by mistake done", said), said
        assert "Nothing matches" in words(own, browser, "/audit?q=nobody")
        for number in range(60):
            own.control.note("test", "count", str(number), None, "done")
        first = browser.get(f"{own.url}/audit?q=count", timeout=PATIENCE_S).text
        older = re.search(r'href="(/audit\?[^"]+before=\d+)">Older', first)
        assert older
        second = browser.get(own.url + html.unescape(older[1]), timeout=PATIENCE_S).text
        assert second.count("<td>count") == 10


def test_the_trail_as_a_file_is_text_also_to_a_spreadsheet(data_dir: Path) -> None:
    with running(data_dir) as own:
        own.control.note("test", "pause", None, '=HYPERLINK("https://evil.example")', "done")
        own.control.note("test", "pause", None, 'a, b\n"c" <i> \x1b[31m', "done")
        answer = own.log_in().get(f"{own.url}/export/audit.csv?q=pause", timeout=PATIENCE_S)
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["reason"] for row in rows] == ['a, b\n"c" <i> \ufffd[31m', '\'=HYPERLINK("https://evil.example")']
        assert "attachment" in answer.headers["Content-Disposition"]


def test_no_route_of_the_page_changes_an_audit_row(admin: Admin) -> None:
    """Append only: the one statement that touches the table inserts."""
    root = Path(audit.__file__).parents[1]
    sources = " ".join(path.read_text() for folder in ("admin", "jobqueue") for path in (root / folder).glob("*.py"))
    assert not re.search(r"(update|delete from|replace into)\s+audit\b", sources)


# ---- bundle -----------------------------------------------------------------------------------------------------------------


def test_the_bundle_is_shown_before_it_is_fetched_and_holds_no_links(data_dir: Path) -> None:
    world.say(data_dir, "a line of the log, a long password")
    with running(data_dir) as own:
        add_failed(own.queue, "failed-1", ERROR)
        own.control.put_up("paused", "a long password", "test")
        browser = own.log_in()
        shown_ = words(own, browser, "/bundle")
        answer = browser.get(f"{own.url}/export/bundle.zip", timeout=PATIENCE_S)
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        names = {
            "doctor.json",
            "status.json",
            "versions.json",
            "settings.json",
            "jobs.json",
            "audit.json",
            "logs/inference.txt",
        }
        assert set(archive.namelist()) == names
        assert all(name in shown_ for name in names)
        assert "a line of the log" in archive.read("logs/inference.txt").decode()
        jobs = json.loads(archive.read("jobs.json"))
        assert (jobs[0]["id"], jobs[0]["error"]["message"]) == ("failed-1", "it broke")
        assert b"media.example" not in archive.read("jobs.json")
        assert "encoder" in {check["name"] for check in json.loads(archive.read("doctor.json"))["checks"]}
        for name in names:
            assert b"a long password" not in archive.read(name), name


def test_a_bundle_with_an_error_of_ten_megabytes_is_still_made(data_dir: Path) -> None:
    with running(data_dir) as own:
        add_failed(own.queue, "failed-1", {**ERROR, "message": "<b>" + "x" * 10_000_000})
        browser = own.log_in()
        page = browser.get(f"{own.url}/bundle", timeout=PATIENCE_S)
        assert page.status_code == 200
        assert len(page.content) < 200_000
        assert browser.get(f"{own.url}/export/bundle.zip", timeout=PATIENCE_S).status_code == 200
        listed = browser.get(f"{own.url}/jobs", timeout=PATIENCE_S)
        assert len(listed.content) < 100_000
