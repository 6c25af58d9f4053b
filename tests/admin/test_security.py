"""The gate before every page, from outside: each rule of it, against the real program."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import flask
import pytest
import requests

from admin import PAGES, security
from settings import SettingsError, load
from tests.admin.program import PASSWORD, Admin, add_done, add_failed, arrival, running
from tests.patience import PATIENCE_S

ROUTES = [
    "/",
    "/jobs",
    "/jobs?state=failed&q=x",
    "/jobs/done-1",
    "/jobs/done-1/files/output",
    "/jobs/nobody",
    "/login",
    "/healthz",
]


@pytest.fixture(scope="module", autouse=True)
def jobs(admin: Admin) -> None:
    add_done(admin.queue, admin.data_dir, "done-1")
    admin.queue.add(arrival("waiting-1"))


@pytest.mark.parametrize("path", [path for path in ROUTES if path not in ("/login", "/healthz")])
def test_nothing_is_shown_without_a_log_in(admin: Admin, path: str) -> None:
    answer = requests.get(admin.url + path, allow_redirects=False, timeout=PATIENCE_S)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login")
    assert "done-1" not in answer.text or "next=" in answer.headers["Location"]


def rules(method: str) -> list[str]:
    """Every address of the page that a method reaches, with a job and a program put in."""
    app = flask.Flask("admin")
    for page in PAGES:
        app.register_blueprint(page.pages)
    names = {"job_id": "waiting-1", "name": "inference", "kind": "output"}
    found = [rule for rule in app.url_map.iter_rules() if method in (rule.methods or ()) and rule.endpoint != "static"]
    addresses = {re.sub(r"<(?:\w+:)?(\w+)>", lambda match: names[match[1]], rule.rule) for rule in found}
    return sorted({address.replace("jobs.output", "jobs.csv") for address in addresses})


def test_a_get_changes_nothing(admin: Admin, browser: requests.Session) -> None:
    unsafe = rules("POST")
    assert len(unsafe) > 20
    before = admin.dump()
    for path in [*ROUTES, *rules("GET"), *unsafe]:
        assert browser.get(admin.url + path, timeout=PATIENCE_S).status_code in (200, 404, 405, 503), path
        assert browser.head(admin.url + path, timeout=PATIENCE_S).status_code in (200, 303, 404, 405, 503), path
    assert admin.dump() == before


@pytest.mark.parametrize("path", rules("GET"))
def test_no_address_is_open_without_a_log_in(admin: Admin, path: str) -> None:
    answer = requests.get(admin.url + path, allow_redirects=False, timeout=PATIENCE_S)
    opened = path in ("/login", "/healthz")
    assert answer.status_code == (200 if opened else 401 if path.startswith("/api/") else 303), path
    assert "waiting-1" not in answer.text or "next=" in answer.headers.get("Location", "")


@pytest.mark.parametrize("path", [path for path in rules("POST") if path != "/login"])
def test_no_act_is_done_without_our_own_form(admin: Admin, browser: requests.Session, path: str) -> None:
    """From nowhere, from elsewhere, and with the cookie alone, as another site could have it sent."""
    before = admin.dump()
    body = {"reason": "mischief", "action": "cancel", "job": "waiting-1"}
    nobody = requests.post(
        admin.url + path, data=body, headers={"Origin": admin.url}, allow_redirects=False, timeout=PATIENCE_S
    )
    assert nobody.status_code in (303, 401)
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": admin.url}):
        answer = browser.post(admin.url + path, data=body, headers=headers, allow_redirects=False, timeout=PATIENCE_S)
        assert answer.status_code == 403, (path, headers)
    for method in ("PUT", "DELETE", "PATCH"):
        sent = browser.request(method, admin.url + path, headers={"Origin": "null"}, allow_redirects=False, timeout=PATIENCE_S)
        assert sent.status_code in (403, 405), (method, path)
    assert admin.dump() == before


def test_names_that_the_operator_allows_are_answered(data_dir: Path) -> None:
    with running(data_dir, ADMIN_ALLOWED_HOSTS="page.example.com, *.Example.net") as own:
        hosts = {"page.example.com": 200, "a.b.example.net:8080": 200, "PAGE.example.com": 200, "example.net": 421}
        hosts |= {"evilexample.net": 421, "page.example.com.evil.example": 421, "x.page.example.com": 421}
        for host, status in hosts.items():
            answer = requests.get(f"{own.url}/login", headers={"Host": host}, timeout=PATIENCE_S)
            assert answer.status_code == status, host


def test_what_a_proxy_says_is_believed_only_if_one_is_expected(data_dir: Path) -> None:
    forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "page.example.com", "X-Forwarded-Proto": "https"}
    with running(data_dir, ADMIN_ALLOWED_HOSTS="page.example.com") as own:
        data, origin = {"password": PASSWORD}, {"Origin": "https://page.example.com"}
        refused = requests.post(f"{own.url}/login", data=data, headers={**forged, **origin}, timeout=PATIENCE_S)
        assert refused.status_code == 403
        requests.post(f"{own.url}/login", data={"password": "x"}, headers={**forged, "Origin": own.url}, timeout=PATIENCE_S)
        assert own.control.notes(1)[0]["target"] == "127.0.0.1"
    with running(data_dir, ADMIN_ALLOWED_HOSTS="page.example.com", ADMIN_TRUSTED_PROXY="1") as own:
        let_in = requests.post(
            f"{own.url}/login", data=data, headers={**forged, **origin}, allow_redirects=False, timeout=PATIENCE_S
        )
        assert let_in.status_code == 303
        assert "Secure" in let_in.headers["Set-Cookie"]
        assert own.control.notes(1)[0]["target"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ADMIN_PASSWORD": "short"}, "ADMIN_PASSWORD: is too short; at least 8 characters"),
        (
            {"ADMIN_PASSWORD": "fifteen letters", "ADMIN_HOST": "0.0.0.0"},
            "at least 16 characters while ADMIN_HOST is not 127.0.0.1",
        ),
        ({"ADMIN_VIEW_PASSWORD": "fifteen letters", "ADMIN_HOST": "::"}, "ADMIN_VIEW_PASSWORD: is too short; at least 16"),
        ({"ADMIN_PASSWORD": "one for both", "ADMIN_VIEW_PASSWORD": "one for both"}, "must be different"),
        ({"ADMIN_ALLOWED_HOSTS": "*"}, "must be host names"),
        ({"ADMIN_ALLOWED_HOSTS": "https://page.example.com"}, "must be host names"),
    ],
)
def test_a_weak_way_in_is_refused_at_the_start(variables: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(line)):
        load(variables)
    assert load({"ADMIN_PASSWORD": "sixteen letters!", "ADMIN_HOST": "0.0.0.0"}).ADMIN_HOST == "0.0.0.0"
    assert load({"ADMIN_PASSWORD": "fifteen letters"})
    assert load({}).ADMIN_HOST == "127.0.0.1"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None, "http://127.0.0.1:1", "http://127.0.0.1"])
def test_a_form_from_another_place_is_refused(admin: Admin, browser: requests.Session, origin: str | None) -> None:
    """The port counts too: cookies go to every port of a host, so a neighbour's page is no friend."""
    assert admin.post(browser, "/pause", {"Origin": origin}, reason="mischief") == 403
    assert admin.control.flag("paused") is None


@pytest.mark.parametrize("token", ["", "0" * 64, "é", "x" * 1000])
def test_a_form_without_the_log_ins_own_token_is_refused(admin: Admin, browser: requests.Session, token: str) -> None:
    assert admin.post(browser, "/pause", csrf=token, reason="mischief") == 403
    assert admin.control.flag("paused") is None


def test_a_token_of_another_log_in_is_refused(admin: Admin, browser: requests.Session) -> None:
    other = admin.form_token(admin.log_in())
    assert admin.post(browser, "/pause", csrf=other, reason="mischief") == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", ""])
def test_a_name_of_somebody_else_is_not_answered(admin: Admin, browser: requests.Session, host: str) -> None:
    """Against DNS rebinding: a stranger's name that suddenly points here."""
    answer = browser.get(f"{admin.url}/", headers={"Host": host}, timeout=PATIENCE_S)
    assert answer.status_code in (400, 421)
    assert "done-1" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "192.0.2.4"])
def test_addresses_and_localhost_are_answered(admin: Admin, host: str) -> None:
    assert requests.get(f"{admin.url}/login", headers={"Host": f"{host}:99"}, timeout=PATIENCE_S).status_code == 200


def test_every_answer_carries_the_headers(admin: Admin, browser: requests.Session) -> None:
    for path in [*ROUTES, "/static/panel.js"]:
        headers = browser.get(admin.url + path, timeout=PATIENCE_S).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not [name for name in headers if name.lower().startswith("access-control")]
        if not path.startswith("/static"):
            assert "no-store" in headers["Cache-Control"] or "files" in path


def test_the_cookie_is_out_of_reach_of_scripts_and_named_after_the_worker(admin: Admin) -> None:
    browser = admin.log_in()
    cookie = next(iter(browser.cookies))
    assert re.fullmatch(r"wadm_[0-9a-f]{8}", cookie.name)
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    assert not any(str(cookie.value) in str(row) for row in admin.dump()), "only a hash of a log-in may be kept"


def test_logging_out_ends_the_log_in_itself(admin: Admin) -> None:
    browser = admin.log_in()
    stolen = browser.cookies.copy()
    assert admin.post(browser, "/logout") == 303
    again = requests.get(f"{admin.url}/", cookies=stolen, allow_redirects=False, timeout=PATIENCE_S)
    assert again.status_code == 303


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "\t//evil", "/\n/evil", "evil"]
)
def test_a_log_in_leads_nowhere_else(target: str) -> None:
    assert security.local_path(target) == "/"


def test_a_log_in_leads_back_to_where_one_was(admin: Admin) -> None:
    headers, data = {"Origin": admin.url}, {"password": "a long password", "next": "/jobs?state=failed"}
    answer = requests.post(f"{admin.url}/login", headers=headers, data=data, allow_redirects=False, timeout=PATIENCE_S)
    assert answer.headers["Location"] == "/jobs?state=failed"


def test_a_large_body_is_refused(admin: Admin, browser: requests.Session) -> None:
    cookies, headers = browser.cookies, {"Origin": admin.url}
    data = {"csrf": "x" * 100_000}
    answer = requests.post(f"{admin.url}/pause", data=data, cookies=cookies, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 413


def test_there_is_no_debugger(admin: Admin, browser: requests.Session) -> None:
    assert browser.get(f"{admin.url}/console", timeout=PATIENCE_S).status_code == 404
    assert browser.get(f"{admin.url}/?__debugger__=yes&cmd=resource&f=style.css", timeout=PATIENCE_S).text.startswith(
        "<!doctype"
    )


def test_an_odd_request_gets_plain_words_and_no_traceback(admin: Admin, browser: requests.Session) -> None:
    for path in ("/jobs?before=99999999999999999999999", "/jobs?q=%00%ff", "/jobs/%00", "/jobs/a%2Fb%3F", "/static/../app.py"):
        answer = browser.get(admin.url + path, timeout=PATIENCE_S)
        assert answer.status_code in (200, 404), path
        assert "Traceback" not in answer.text


def test_it_listens_on_this_machine_alone(admin: Admin) -> None:
    port = int(admin.url.rsplit(":", 1)[1])
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_guesses_are_counted_before_the_password_is_looked_at(data_dir: Path) -> None:
    with running(data_dir) as own:
        headers = {"Origin": own.url}
        answers = [
            requests.post(f"{own.url}/login", headers=headers, data={"password": f"guess {n}"}, timeout=PATIENCE_S)
            for n in range(11)
        ]
        assert [answer.status_code for answer in answers] == [403] * 10 + [429]
        assert int(answers[-1].headers["Retry-After"]) > 0
        right = requests.post(f"{own.url}/login", headers=headers, data={"password": "a long password"}, timeout=PATIENCE_S)
        assert right.status_code == 429
        assert [note["result"] for note in own.control.notes() if note["action"] == "log in"].count("refused") >= 10


def test_strangers_cannot_fill_the_audit_trail_and_who_comes_in_is_always_in_it(data_dir: Path) -> None:
    with running(data_dir, ADMIN_TRUSTED_PROXY="1") as own:

        def enter(password: str, address: str) -> int:
            headers = {"Origin": own.url, "X-Forwarded-For": address}
            data = {"password": password}
            return requests.post(
                f"{own.url}/login", headers=headers, data=data, allow_redirects=False, timeout=PATIENCE_S
            ).status_code

        assert {enter("a guess", f"192.0.2.{number}") for number in range(25)} == {403}
        assert enter(PASSWORD, "198.51.100.1") == 303
        rows = [(note["target"], note["result"]) for note in own.control.notes()]
        assert rows[:2] == [("198.51.100.1", "done"), ("192.0.2.19", "refused, as were 19 others within the hour")]
        assert len(rows) == 1 + 1 + 10


def test_a_new_password_ends_every_log_in(data_dir: Path) -> None:
    with running(data_dir) as own:
        cookies = own.log_in().cookies
        assert requests.get(f"{own.url}/", cookies=cookies, allow_redirects=False, timeout=PATIENCE_S).status_code == 200
    with running(data_dir) as own:
        assert requests.get(f"{own.url}/", cookies=cookies, allow_redirects=False, timeout=PATIENCE_S).status_code == 200
    with running(data_dir, ADMIN_PASSWORD="another password") as own:
        assert requests.get(f"{own.url}/", cookies=cookies, allow_redirects=False, timeout=PATIENCE_S).status_code == 303


def test_without_a_password_a_link_in_the_log_opens_once(data_dir: Path) -> None:
    with running(data_dir, ADMIN_PASSWORD="") as own:
        said = (data_dir / "said").read_text()
        link = re.search(r"(http://127\.0\.0\.1:\d+)/login#code=([2-9A-Z]{4}-[2-9A-Z]{4})", said)
        assert link
        assert link[1] == own.url
        token = (data_dir / "admin_token").read_text().strip()
        assert (data_dir / "admin_token").stat().st_mode & 0o777 == 0o600
        assert len(token) >= 32
        assert token not in said
        own.log_in(link[2].lower().replace("-", " "))
        again = requests.post(f"{own.url}/login", headers={"Origin": own.url}, data={"password": link[2]}, timeout=PATIENCE_S)
        assert again.status_code == 403
        own.log_in(token)


def test_an_empty_token_file_does_not_open_the_door(data_dir: Path) -> None:
    (data_dir / "admin_token").write_text("\n")
    with running(data_dir, ADMIN_PASSWORD="") as own:
        answer = requests.post(f"{own.url}/login", headers={"Origin": own.url}, data={"password": ""}, timeout=PATIENCE_S)
        assert answer.status_code == 403
        assert len((data_dir / "admin_token").read_text().strip()) >= 32


def test_no_page_ever_holds_a_secret(data_dir: Path) -> None:
    canaries = {name: f"canary-{name}-secret" for name in ("INTERNAL_API_KEY", "B2_KEY_ID", "B2_APP_KEY", "API_TOKEN")}
    canaries["ADMIN_PASSWORD"] = "canary-ADMIN_PASSWORD-secret"
    everything = " ".join(canaries.values()) + " https://media.example/v.mp4?sig=canary-signature"
    variables = {
        **canaries,
        "B2_BUCKET_NAME": "bucket",
        "WORKER_TYPE": "main",
        "ORCHESTRATOR_BASE_URL": "http://u:canary-pw@127.0.0.1:1",
    }
    with running(data_dir, **variables) as own:
        error = {"message": everything, "error_type": "processing_error", "retryable": True, "stage": "download"}
        add_failed(own.queue, "failed-1", {**error, "details": {"link": everything}, "stack_trace": everything})
        own.queue.add(arrival("j2", video_url="https://u:canary-pw@media.example/v.mp4?sig=canary-signature"))
        own.queue.add(replace(arrival("j3"), params={"deep": [{"link": everything}]}))
        own.control.put_up("paused", everything, everything)
        own.control.put_up("unfit", everything, "test")
        own.control.publish("poller", {"orchestrator": {"ok": False, "error": everything}, "gpus": []})
        own.control.publish("uploader", {"store": "b2", "ok": False, "error": everything})
        own.control.publish("inference", {"engine": "preview", "model_loaded": False, "reason": everything})
        browser = own.log_in("canary-ADMIN_PASSWORD-secret")
        for path in ("/", "/jobs", "/jobs/failed-1", "/jobs/j2", "/jobs/j3", "/login", "/nothing", "/jobs?q=canary-n"):
            text = browser.get(own.url + path, timeout=PATIENCE_S).text.replace("canary-n", "")
            assert "canary" not in text, f"{path}: {text[max(0, text.index('canary') - 300) : text.index('canary') + 60]}"
        own.outbox.sent(own.outbox.due()[0][0], everything)
        assert "canary" not in browser.get(f"{own.url}/jobs/failed-1", timeout=PATIENCE_S).text
        assert "canary" not in (data_dir / "said").read_text()


def test_what_strangers_wrote_is_text_and_nothing_else(admin: Admin, browser: requests.Session) -> None:
    evil = "\"><script>alert(1)</script>'\x1b[31m\u202eevil"
    job_id = "odd/../<b>\"'&?#\u202e"
    admin.queue.add(arrival(job_id, video_url=f"javascript:alert(1)//{evil}"))
    admin.queue.cancel(job_id, evil)
    for path in ("/", "/jobs", f"/jobs/{quote(job_id, safe='')}"):
        text = browser.get(admin.url + path, timeout=PATIENCE_S).text
        assert "<script>alert" not in text, path
        assert "odd/../<b>" not in text, path
        assert 'href="javascript' not in text, path
        assert not {"\x1b", "\u202e"} & set(text), path
