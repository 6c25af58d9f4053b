"""/api/v1 from outside: the operations of the pages, for programs; tagged, masked, refused in one shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.admin import world
from tests.admin.program import PASSWORD, ROOT, Admin, add_done, add_failed, arrival, running
from tests.patience import PATIENCE_S, until

ERROR = {"message": "it broke", "error_type": "processing_error", "retryable": True, "stage": "inference"}
LOOKS = (
    "status",
    "jobs",
    "jobs/done-1",
    "jobs/done-1/log",
    "gpu",
    "gpu/history",
    "logs/inference",
    "settings",
    "audit",
    "doctor",
)


class Client:
    """A program that asks with a token."""

    def __init__(self, url: str, token: str = PASSWORD) -> None:
        self.url, self.headers = f"{url}/api/v1/", {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=self.headers | headers, timeout=PATIENCE_S)

    def post(self, path: str, body: Any = None, **headers: str) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=self.headers | headers, timeout=PATIENCE_S)


def refusal(answer: requests.Response, status: int, code: str) -> str:
    """The message of an error in the API's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == code
    return str(error["message"])


@pytest.fixture(scope="module")
def client(admin: Admin) -> Client:
    add_done(admin.queue, admin.data_dir, "done-1")
    add_failed(admin.queue, "failed-1", ERROR)
    world.say(admin.data_dir, "generated", job="done-1")
    return Client(admin.url)


def test_everything_that_is_looked_at_has_a_tag_and_is_sent_once(client: Client) -> None:
    for path in LOOKS:
        first = client.get(path)
        assert first.status_code == 200, path
        assert first.headers["Content-Type"] == "application/json"
        again = client.get(path, **{"If-None-Match": first.headers["ETag"]})
        if path != "gpu/history":  # it says what time it is
            assert (again.status_code, again.content) == (304, b""), path


def test_jobs_are_listed_filtered_and_paged(client: Client) -> None:
    assert [job["id"] for job in client.get("jobs?state=failed").json()["jobs"]] == ["failed-1"]
    first = client.get("jobs?limit=1").json()
    second = client.get(f"jobs?limit=1&before={first['next']}").json()
    assert {first["jobs"][0]["id"], second["jobs"][0]["id"]} == {"failed-1", "done-1"}
    job = client.get("jobs/done-1").json()
    assert (job["state"], job["history"][-1]["state"]) == ("succeeded", "succeeded")
    assert [line["text"] for line in client.get("jobs/done-1/log").json()["lines"]] == ["generated  [job=done-1]"]


def test_a_log_goes_on_from_its_place(admin: Admin, client: Client) -> None:
    place = client.get("logs/inference").json()["after"]
    world.say(admin.data_dir, "something new")
    assert [line["text"] for line in client.get(f"logs/inference?after={place}").json()["lines"]] == ["something new"]
    assert "there are inference" in refusal(client.get("logs/nobody"), 404, "not_found")


def test_a_pause_is_changed_once(admin: Admin, client: Client) -> None:
    first = client.post("pause", {"reason": "lunch", "minutes": 30}).json()
    assert (first["changed"], first["paused"]["reason"]) == (True, "lunch")
    again = client.post("pause", {"reason": "dinner"})
    assert again.status_code == 200
    assert (again.json()["changed"], again.json()["paused"]["reason"]) == (False, "lunch")
    assert client.post("resume").json() == {"changed": True}
    assert client.post("resume").json() == {"changed": False}
    drained = client.post("drain", {"reason": "new image", "deadline": 10}).json()
    assert drained["draining"]["deadline"] > drained["draining"]["at"]
    assert client.post("resume").json() == {"changed": True}
    assert admin.control.notes(1)[0]["actor"] == "api@127.0.0.1"


def test_jobs_are_cancelled_retried_and_handed_in(admin: Admin, client: Client) -> None:
    links = {"video_url": "https://media.example/v.mp4", "audio_url": "https://media.example/a.wav"}
    made = client.post("jobs", links)
    assert made.status_code == 201
    job_id = made.json()["job"]["id"]
    assert client.post(f"jobs/{job_id}/cancel", {"reason": "mistake"}).json()["job"]["state"] == "cancelled"
    assert client.post(f"jobs/{job_id}/cancel", {"reason": "mistake"}).json()["changed"] is False
    assert client.post(f"jobs/{job_id}/retry").json()["changed"] is True
    many = {"action": "cancel", "jobs": [job_id, "nobody"], "reason": "mistake"}
    assert client.post("jobs/bulk", many).json() == {"changed": True, "asked": 2, "done": [job_id]}
    many = {"action": "delete", "jobs": [job_id, "nobody"], "reason": "a customer asked"}
    assert client.post("jobs/bulk", many).json() == {"changed": True, "asked": 2, "done": [job_id]}
    assert client.post(f"jobs/{job_id}/delete-files", {"reason": "a customer asked"}).json()["changed"] is True
    assert admin.control.discards() == [job_id]
    admin.control.end_discard(job_id)
    test = client.post(f"jobs/{job_id}/test").json()["job"]["id"]
    assert admin.queue.cancel(test, "the test is over")
    sample = client.post("test-job").json()["job"]["id"]
    assert admin.queue.cancel(sample, "the test is over")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("pause", {}, "reason: is missing"),
        ("pause", {"reason": "  "}, "reason: is missing"),
        ("pause", {"reason": 7}, "reason: is missing"),
        ("pause", {"reason": "lunch", "minutes": "30"}, "minutes: must be a number of minutes"),
        ("pause", {"reason": "lunch", "minutes": True}, "minutes: must be a number of minutes"),
        ("pause", {"reason": "lunch", "minutes": -1}, "-60 s: must be a time from 1 s to 30 days"),
        ("pause", ["reason"], "the body must be a JSON object"),
        ("drain", {"reason": "x", "deadline": 1e12}, "must be a time from 1 s to 30 days"),
        ("jobs/failed-1/cancel", {}, "reason: is missing"),
        ("jobs/bulk", {"action": "remove", "jobs": []}, "action: retry, cancel, delete"),
        ("jobs/bulk", {"action": "retry", "jobs": "failed-1"}, "must be like"),
        ("jobs/bulk", {"action": "retry", "jobs": ["x"] * 501}, "501 jobs; at most 500 at once"),
        ("jobs", {"video_url": "file:///etc/passwd"}, "video_url: must be an http:// or https:// link"),
        ("jobs", {"video_url": "/etc/passwd"}, "video_url: must be an http:// or https:// link"),
        ("jobs", {"video_url": "https://a.example/v"}, "audio_url: "),
        ("processes/guard/restart", {"reason": "x"}, "'guard' cannot be restarted; must be one of poller"),
        ("processes/inference/restart", {"reason": "x", "when": "later"}, "when: must be after or now"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_shape(client: Client, path: str, body: Any, message: str) -> None:
    assert message in refusal(client.post(path, body), 400, "bad_request")


def test_a_body_that_is_no_json_is_refused(client: Client) -> None:
    for data in (b"{", b"\xff\xfe", b"[" * 50_000, b"null"):
        headers = {**client.headers, "Content-Type": "application/json"}
        answer = requests.post(client.url + "pause", data=data, headers=headers, timeout=PATIENCE_S)
        assert refusal(answer, 400, "bad_request")
    large = requests.post(client.url + "pause", data=b"x" * 100_000, headers=client.headers, timeout=PATIENCE_S)
    refusal(large, 413, "request_entity_too_large")


def test_what_is_not_there_is_said_in_the_same_shape(client: Client) -> None:
    assert "no job 'nobody'" in refusal(client.get("jobs/nobody"), 404, "not_found")
    refusal(client.get("nothing"), 404, "not_found")
    refusal(client.get("pause"), 405, "method_not_allowed")
    assert "state: got 'x'" in refusal(client.get("jobs?state=x"), 400, "bad_request")
    refusal(client.get("jobs?before=-1"), 400, "bad_request")
    refusal(client.get("jobs?limit=x"), 400, "bad_request")
    assert "supervisord does not answer" in refusal(client.get("processes"), 503, "service_unavailable")
    answer = client.post("processes/inference/restart", {"reason": "a leak"})
    assert "supervisord does not answer" in refusal(answer, 503, "service_unavailable")


# ---- who may ask ------------------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_said(admin: Admin) -> None:
    for path in (*LOOKS, "processes"):
        answer = requests.get(f"{admin.url}/api/v1/{path}", allow_redirects=False, timeout=PATIENCE_S)
        refusal(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "done-1" not in answer.text


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YWRtaW46YSBsb25nIHBhc3N3b3Jk", "a long password", "Bearer é"])
def test_a_header_that_is_no_token_opens_nothing(data_dir: Path, header: str) -> None:
    with running(data_dir) as own:
        headers = {"Authorization": header.encode()}
        refusal(requests.get(f"{own.url}/api/v1/status", headers=headers, timeout=PATIENCE_S), 401, "unauthorized")


def test_a_token_opens_the_api_alone(admin: Admin, client: Client) -> None:
    page = requests.get(f"{admin.url}/", headers=client.headers, allow_redirects=False, timeout=PATIENCE_S)
    assert page.status_code == 303
    form = requests.post(f"{admin.url}/pause", data={"reason": "x"}, headers=client.headers, timeout=PATIENCE_S)
    assert form.status_code == 403
    assert admin.control.flag("paused") is None


def test_a_browsers_cookie_may_look_but_acts_only_with_our_own_token(admin: Admin, browser: requests.Session) -> None:
    assert browser.get(f"{admin.url}/api/v1/status", timeout=PATIENCE_S).status_code == 200
    answer = browser.post(f"{admin.url}/api/v1/pause", json={"reason": "mischief"}, timeout=PATIENCE_S)
    refusal(answer, 403, "forbidden")
    evil = {"Origin": "https://evil.example", "X-CSRF": admin.form_token(browser)}
    refusal(browser.post(f"{admin.url}/api/v1/pause", json={"reason": "x"}, headers=evil, timeout=PATIENCE_S), 403, "forbidden")
    ours = {"X-CSRF": admin.form_token(browser)}
    assert browser.post(f"{admin.url}/api/v1/resume", headers=ours, timeout=PATIENCE_S).json() == {"changed": False}


def test_guesses_at_the_token_are_counted_and_noted(data_dir: Path) -> None:
    with running(data_dir) as own:
        answers = [Client(own.url, f"guess-{number}").get("status").status_code for number in range(11)]
        assert answers == [401] * 10 + [429]
        late = Client(own.url).get("status")
        refusal(late, 429, "too_many_requests")
        assert int(late.headers["Retry-After"]) > 0
        assert len(own.control.notes(text="refused")) == 10


def test_a_viewers_token_may_only_look(data_dir: Path) -> None:
    with running(data_dir, ADMIN_VIEW_PASSWORD="only for looking") as own:
        viewer = Client(own.url, "only for looking")
        assert viewer.get("status").status_code == 200
        assert "session is read-only" in refusal(viewer.post("pause", {"reason": "x"}), 403, "forbidden")
        assert own.control.flags() == {}


def test_no_answer_of_the_api_holds_a_secret(data_dir: Path) -> None:
    secrets = {name: f"canary-{name}-secret" for name in ("INTERNAL_API_KEY", "B2_KEY_ID", "B2_APP_KEY", "API_TOKEN")}
    secrets |= {"ADMIN_PASSWORD": "canary-ADMIN_PASSWORD-secret", "ADMIN_VIEW_PASSWORD": "canary-ADMIN_VIEW_PASSWORD-secret"}
    everything = " ".join(secrets.values()) + " https://media.example/v.mp4?sig=canary-signature"
    with running(data_dir, **secrets, B2_BUCKET_NAME="bucket") as own:
        add_failed(own.queue, "failed-1", {**ERROR, "message": everything, "details": {everything: [everything]}})
        own.queue.add(
            replace(arrival("j2", video_url="https://m.example/v.mp4?sig=canary-signature"), params={"a": everything})
        )
        own.control.put_up("paused", everything, everything)
        own.control.publish("poller", {"gpus": [{"name": everything}]})
        world.say(data_dir, everything, job="failed-1")
        client = Client(own.url, secrets["ADMIN_PASSWORD"])
        for path in (
            "status",
            "jobs",
            "jobs/failed-1",
            "jobs/j2",
            "jobs/failed-1/log",
            "gpu",
            "logs/inference",
            "settings",
            "audit",
        ):
            assert "canary" not in client.get(path).text, path
        browser = own.log_in(secrets["ADMIN_PASSWORD"])
        for path in ("/settings", "/audit", "/bundle", "/export/audit.csv", "/processes", "/processes/log/inference/download"):
            assert "canary" not in browser.get(own.url + path, timeout=PATIENCE_S).text, path


# ---- the command line is another skin ---------------------------------------------------------------------------------------


def test_the_same_scenario_leaves_the_same_rows_by_the_command_line(tmp_path: Path) -> None:
    def rows(folder: Path, act: Any) -> Any:
        folder.mkdir()
        with running(folder) as own:
            own.queue.add(arrival("one"))
            add_failed(own.queue, "two", ERROR) if own.queue.cancel("one", "first") else None
            act(own)
            names = ("action", "target", "reason", "result")
            notes = [{name: note[name] for name in names} for note in own.control.notes() if note["action"] != "log in"]
            jobs = [(job.id, job.state, job.round) for job in own.queue.newest()]
            return notes, jobs, set(own.control.flags())

    def by_api(own: Admin) -> None:
        client = Client(own.url)
        client.post("pause", {"reason": "lunch"})
        client.post("jobs/two/retry")
        client.post("jobs/two/cancel", {"reason": "mistake"})
        client.post("jobs/bulk", {"action": "retry", "jobs": ["one", "two"]})
        client.post("resume")
        client.post("drain", {"reason": "new image"})

    def by_command(own: Admin) -> None:
        environ = {**os.environ, "DATA_DIR": str(own.data_dir), "PYTHONPATH": str(ROOT)}
        lines = ("pause --reason lunch", "retry two", "cancel two --reason mistake", "retry one two", "resume")
        for line in (*lines, "drain --reason=new\u00a0image"):
            words = [word.replace("\u00a0", " ") for word in line.split(" ")]
            subprocess.run(
                [sys.executable, "-m", "cli", *words], env=environ, check=True, capture_output=True, cwd=own.data_dir
            )

    assert rows(tmp_path / "api", by_api) == rows(tmp_path / "command", by_command)


def test_a_program_is_restarted_by_the_api(data_dir: Path) -> None:
    with running(data_dir) as own, world.supervisord(data_dir, {"inference": "steady.py", "uploader": "steady.py"}) as programs:
        client, pid = Client(own.url), programs.running_pid("uploader")
        listed = {program["name"]: program["state"] for program in client.get("processes").json()["programs"]}
        assert listed == {"inference": "RUNNING", "uploader": "RUNNING"}
        assert client.post("processes/uploader/restart", {"reason": "a leak"}).json() == {
            "changed": True,
            "program": "uploader",
        }
        until(lambda: (found := programs.program("uploader")) and found.pid != pid)
        assert json.loads(client.get("audit?q=a+leak").text)["audit"][0]["result"] == "done"
