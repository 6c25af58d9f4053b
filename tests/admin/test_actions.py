"""What an operator does from the pages, from outside: what it changes, what it refuses, where it leads."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from jobqueue import clock, spool
from tests.admin.program import Admin, add_done, add_failed, arrival, running
from tests.patience import PATIENCE_S

ERROR = {"message": "it broke", "error_type": "processing_error", "retryable": True, "stage": "inference"}
ODD = "odd/<b>\"'&?#\u202e"


def text(answer: requests.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def send(admin: Admin, browser: requests.Session, path: str, **fields: str | list[str]) -> requests.Response:
    """A form of ours; the answer's own page, or where it leads."""
    data = {"csrf": admin.form_token(browser), **fields}
    return browser.post(admin.url + path, data=data, timeout=PATIENCE_S)


def states(admin: Admin, *names: str) -> list[tuple[str, int]]:
    return [(job.state, job.round) for name in names if (job := admin.queue.get(name))]


@pytest.fixture(autouse=True)
def awake(admin: Admin) -> None:
    admin.control.take_down("paused")
    admin.control.take_down("draining")


def test_a_pause_says_until_when_and_what_still_goes_on(admin: Admin, browser: requests.Session) -> None:
    add_failed(admin.queue, "report-1", ERROR)
    said = text(send(admin, browser, "/pause", reason="lunch", minutes="30"))
    flag = admin.control.flag("paused")
    assert flag
    assert flag["until_boot_s"] - clock.now() == pytest.approx(1800, abs=20)
    assert f"The pause ends {flag['until'][:19].replace('T', ' ')} UTC" in said
    assert re.search(r"In progress: \d+ reports, heartbeats\.", said)
    for page in ("/jobs", "/settings", "/processes"):
        assert "by web:" in text(browser.get(admin.url + page, timeout=PATIENCE_S))


def test_a_drain_with_a_deadline(admin: Admin, browser: requests.Session) -> None:
    said = text(send(admin, browser, "/drain", reason="new image", minutes="10"))
    assert ", at the latest" in said
    flag = admin.control.flag("draining")
    assert flag
    assert flag["deadline_boot_s"] - clock.now() == pytest.approx(600, abs=20)
    assert text(send(admin, browser, "/resume")).count("Resume") == 0
    assert admin.control.flags() == {}


@pytest.mark.parametrize("minutes", ["-1", "0", "x", "1e99", "nan", "inf", "99999999"])
def test_minutes_that_make_no_sense_are_refused_with_words(admin: Admin, browser: requests.Session, minutes: str) -> None:
    for path in ("/pause", "/drain"):
        answer = send(admin, browser, path, reason="lunch", minutes=minutes)
        assert answer.status_code == 400
        assert "must be" in text(answer)
    assert admin.control.flags() == {}


@pytest.mark.parametrize(
    ("referer", "lands"),
    [("/jobs?state=failed", "/jobs?state=failed"), ("", "/"), ("https://evil.example/jobs", "/"), ("//evil.example", "/")],
)
def test_an_action_leads_back_to_its_page_and_nowhere_else(
    admin: Admin, browser: requests.Session, referer: str, lands: str
) -> None:
    referer = admin.url + referer if referer.startswith("/jobs") else referer
    data = {"csrf": admin.form_token(browser), "reason": "lunch"}
    sent = {"Referer": referer}
    answer = browser.post(f"{admin.url}/pause", data=data, headers=sent, allow_redirects=False, timeout=PATIENCE_S)
    assert answer.headers["Location"] == lands


def test_many_jobs_are_named_and_counted_before_anything_is_done(admin: Admin, browser: requests.Session) -> None:
    add_done(admin.queue, admin.data_dir, "a-done")
    for name in ("a-1", "a-2", ODD):
        admin.queue.add(arrival(name))
    chosen = [quote(name, safe="") for name in ("a-1", ODD, "a-done", "nobody")]
    asked = send(admin, browser, "/jobs/many", action="cancel", job=chosen, list="state=open")
    assert "Cancel 2 jobs?" in text(asked)
    assert "cannot be undone" in text(asked)
    assert states(admin, "a-1", ODD) == [("claimed", 1), ("claimed", 1)]
    ids = re.findall(r'name="job" value="([^"]+)"', asked.text)
    assert send(admin, browser, "/jobs/many/do", action="cancel", job=ids).status_code == 400
    done = send(admin, browser, "/jobs/many/do", action="cancel", job=ids, reason="mistake")
    assert "2 of 2 jobs were cancelled" in text(done)
    assert states(admin, "a-1", "a-2", ODD, "a-done") == [
        ("cancelled", 1),
        ("claimed", 1),
        ("cancelled", 1),
        ("succeeded", 1),
    ]
    assert {note["target"] for note in admin.control.notes(text="mistake")} == {"a-1", ODD}
    admin.queue.cancel("a-2", "the test is over")


def test_all_that_match_means_the_lists_own_filters(admin: Admin, browser: requests.Session) -> None:
    for name in ("match-1", "match-2", "other-1"):
        add_failed(admin.queue, name, ERROR)
    asked = send(admin, browser, "/jobs/many", action="retry", all="1", state="failed", q="match-")
    assert "Retry 2 jobs?" in text(asked)
    assert re.findall(r'name="job" value="([^"]+)"', asked.text) == ["match-2", "match-1"]
    assert "Nothing to cancel" in text(send(admin, browser, "/jobs/many", action="cancel", all="1", state="failed"))
    ids = re.findall(r'name="job" value="([^"]+)"', asked.text)
    assert "2 of 2 jobs were queued for a retry" in text(send(admin, browser, "/jobs/many/do", action="retry", job=ids))
    for name in ("match-1", "match-2"):
        admin.queue.cancel(name, "the test is over")


def test_no_more_than_500_at_once(data_dir: Path) -> None:
    with running(data_dir) as own:
        for number in range(503):
            own.queue.add(arrival(f"job-{number:03}" + "x" * 190))
        browser = own.log_in()
        asked = send(own, browser, "/jobs/many", action="cancel", all="1")
        assert "Cancel 500 jobs?" in text(asked)
        assert "More jobs match. These are the newest 500" in text(asked)
        ids = re.findall(r'name="job" value="([^"]+)"', asked.text)
        assert len(ids) == 500
        assert "500 of 500" in text(send(own, browser, "/jobs/many/do", action="cancel", job=ids, reason="all"))
        assert own.queue.counts() == {"cancelled": 500, "claimed": 3}
        too_many = send(own, browser, "/jobs/many/do", action="retry", job=[f"job-{n}" for n in range(501)])
        assert too_many.status_code == 400
        assert "501 jobs; at most 500 at once" in text(too_many)


@pytest.mark.parametrize("action", ["", "remove", "succeed"])
def test_only_known_actions_are_done_to_many(admin: Admin, browser: requests.Session, action: str) -> None:
    for path in ("/jobs/many", "/jobs/many/do"):
        assert send(admin, browser, path, action=action, job=["x"]).status_code == 400


def test_files_go_only_of_jobs_that_are_over_and_the_dialog_says_for_good(admin: Admin, browser: requests.Session) -> None:
    add_failed(admin.queue, "gone-1", ERROR)
    admin.queue.add(arrival("gone-2"))
    asked = send(admin, browser, "/jobs/many", action="delete", job=["gone-1", "gone-2"])
    assert "Delete the files of 1 job?" in text(asked)
    assert "Permanently deletes the inputs" in text(asked)
    assert send(admin, browser, "/jobs/many/do", action="delete", job=["gone-1"]).status_code == 400
    done = send(admin, browser, "/jobs/many/do", action="delete", job=["gone-1", "gone-2"], reason="a customer asked")
    assert "1 of 2 jobs were accepted: the files will be deleted within seconds" in text(done)
    assert admin.control.discards() == ["gone-1"]
    assert {note["target"]: note["result"] for note in admin.control.notes(text="a customer asked")} == {
        "gone-1": "done",
        "gone-2": "nothing to do",
    }
    admin.control.end_discard("gone-1")
    assert send(admin, browser, "/jobs/gone-1/delete-files").status_code == 400
    send(admin, browser, "/jobs/gone-1/delete-files", reason="a customer asked")
    assert admin.control.discards() == ["gone-1"]
    admin.control.end_discard("gone-1")
    admin.queue.cancel("gone-2", "the test is over")


def test_a_job_is_run_as_a_test_from_the_files_that_are_here(admin: Admin, browser: requests.Session) -> None:
    add_done(admin.queue, admin.data_dir, "model-1")
    name = send(admin, browser, "/jobs/model-1/test").url.rsplit("/", 1)[1]
    job = admin.queue.get(name)
    assert job
    assert (job.source, job.id[:5]) == ("local", "test-")
    assert 'id="command"' not in browser.get(f"{admin.url}/jobs/{name}", timeout=PATIENCE_S).text
    for field in ("video_url", "audio_url"):
        copied = Path(job.inputs[field].removeprefix("file://"))
        assert copied.read_bytes() == spool.input_file(admin.data_dir, "model-1", field).read_bytes()
    admin.queue.cancel(name, "the test is over")


def test_a_job_whose_files_are_gone_is_run_as_a_test_from_its_links(admin: Admin, browser: requests.Session) -> None:
    add_failed(admin.queue, "model-2", ERROR)
    name = send(admin, browser, "/jobs/model-2/test").url.rsplit("/", 1)[1]
    job, model = admin.queue.get(name), admin.queue.get("model-2")
    assert job
    assert model
    assert (job.inputs["video_url"], job.params) == (model.inputs["video_url"], model.params)
    admin.queue.cancel(name, "the test is over")


def test_the_command_of_a_job_hands_in_the_same_one_without_what_signs_its_links(
    admin: Admin, browser: requests.Session
) -> None:
    link = "https://media.example/it's a face.mp4"
    admin.queue.add(replace(arrival("curl-1", video_url=f"{link}?sig=secret"), params={"loop": "hold"}))
    said = browser.get(f"{admin.url}/jobs/curl-1", timeout=PATIENCE_S).text
    found = re.search(r'id="command">(.*?)</pre>', said, re.DOTALL)
    assert found
    assert "secret" not in said
    command, address, *words = shlex.split(html.unescape(found[1]))
    assert (command, address) == ("curl", "http://127.0.0.1:8000/generate")
    sent = json.loads(words[words.index("-d") + 1])
    assert (sent["video_url"], sent["params"]) == (f"{link}?…", {"loop": "hold"})
    assert "without their signatures" in text(browser.get(f"{admin.url}/jobs/curl-1", timeout=PATIENCE_S))
    admin.queue.cancel("curl-1", "the test is over")


def test_the_sample_job_is_one_click(admin: Admin, browser: requests.Session) -> None:
    answer = send(admin, browser, "/sample")
    name = answer.url.rsplit("/", 1)[1]
    assert name.startswith("sample-")
    assert admin.queue.cancel(name, "the test is over")


# ---- who may only look ------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_everything_and_can_do_nothing(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking") as own:
        own.queue.add(arrival("waiting-1"))
        add_failed(own.queue, "failed-1", ERROR)
        browser = own.log_in("only for looking")
        before = own.dump()
        for path in ("/", "/jobs", "/jobs/waiting-1", "/jobs/failed-1", "/gpu", "/processes", "/settings", "/audit", "/submit"):
            page = browser.get(own.url + path, timeout=PATIENCE_S)
            assert page.status_code == 200, path
            assert re.findall(r'method="post" action="([^"]+)"', page.text) == ["/logout"], path
        paths = ("/pause", "/drain", "/resume", "/sample", "/jobs/waiting-1/cancel", "/jobs/failed-1/retry", "/jobs/many/do")
        for path in (*paths, "/submit", "/processes/inference/restart", "/settings/sign-out", "/settings/login-link"):
            answer = send(own, browser, path, reason="mischief", action="cancel", job=["waiting-1"])
            assert answer.status_code == 403, path
            assert "session is read-only" in text(answer)
        assert own.dump() == before
        assert send(own, browser, "/logout").url.endswith("/login")


def test_a_log_in_to_look_stays_one(data_dir: Path) -> None:
    """Which secret began a log-in decides for ever: swapping the two passwords ends both."""
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking") as own:
        cookies = own.log_in("only for looking").cookies
    with running(data_dir, ADMIN_PASSWORD="only for looking", ADMIN_VIEW_PASSWORD="a long password") as own:
        assert requests.get(f"{own.url}/", cookies=cookies, allow_redirects=False, timeout=PATIENCE_S).status_code == 200
    with running(data_dir, ADMIN_VIEW_PASSWORD="yet another one") as own:
        assert requests.get(f"{own.url}/", cookies=cookies, allow_redirects=False, timeout=PATIENCE_S).status_code == 303
