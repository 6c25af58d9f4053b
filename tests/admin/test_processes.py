"""Programs and logs from outside, before a real supervisord."""

from __future__ import annotations

import html
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import supervision
from jobqueue.job import FETCH, GENERATE
from tests.admin import world
from tests.admin.program import Admin, arrival, running
from tests.guard.supervised import Supervised
from tests.patience import PATIENCE_S, until


@pytest.fixture(scope="module")
def supervisord(admin: Admin) -> Iterator[Supervised]:
    with world.supervisord(admin.data_dir) as started:
        yield started


def words(admin: Admin, browser: requests.Session, path: str) -> str:
    answer = browser.get(admin.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def lines(admin: Admin, browser: requests.Session, path: str) -> list[str]:
    page = browser.get(admin.url + path, timeout=PATIENCE_S).text
    return [html.unescape(line).strip() for line in re.findall(r'<span class="(?:info|warning|error|)">([^<]*)</span>', page)]


def restart(admin: Admin, browser: requests.Session, name: str, **fields: str) -> int:
    return admin.post(browser, f"/processes/{name}/restart", None, **{"reason": "a leak", **fields})


def test_each_program_is_shown_with_its_state(admin: Admin, browser: requests.Session, supervisord: Supervised) -> None:
    said = words(admin, browser, "/processes")
    for name in world.PROGRAMS:
        pid = supervisord.running_pid(name)
        assert re.search(rf"\b{name} running \S+ \S+ UTC pid {pid} \d+ MB", said), said
    page = browser.get(f"{admin.url}/processes", timeout=PATIENCE_S).text
    restarts = re.findall(r'action="/processes/(\w+)/restart"', page)
    assert sorted(restarts) == ["api", "inference", "poller", "uploader"]


def test_a_program_is_restarted_now_or_after_its_job(admin: Admin, browser: requests.Session, supervisord: Supervised) -> None:
    pid = supervisord.running_pid("inference")
    admin.queue.add(arrival("one"))
    for stage in (FETCH, GENERATE):
        job = admin.queue.take(stage, f"{stage.program}/1")
        assert job
        if stage == FETCH:
            admin.queue.done(stage, job, {})
    assert "working on one" in words(admin, browser, "/processes")
    assert restart(admin, browser, "inference", when="after") == 303
    assert "will restart after its job: a leak" in words(admin, browser, "/processes")
    assert supervisord.running_pid("inference") == pid
    assert restart(admin, browser, "inference", when="now") == 303
    until(lambda: (found := supervisord.program("inference")) and found.pid != pid)
    assert admin.control.restarts() == {}
    assert admin.control.notes(1)[0]["target"] == "inference"


@pytest.mark.parametrize("name", ["admin", "guard", "supervisord", "nobody", "worker:inference", "all"])
def test_the_page_its_guard_and_supervisord_cannot_be_touched(
    admin: Admin, browser: requests.Session, supervisord: Supervised, name: str
) -> None:
    before = {program.name: program.pid for program in supervision.programs(supervisord.folder / "run")}
    assert restart(admin, browser, name) == 400
    assert {program.name: program.pid for program in supervision.programs(supervisord.folder / "run")} == before


def test_a_restart_needs_a_reason_and_a_form(admin: Admin, browser: requests.Session, supervisord: Supervised) -> None:
    pid = supervisord.running_pid("poller")
    assert restart(admin, browser, "poller", reason=" ") == 400
    assert browser.get(f"{admin.url}/processes/poller/restart", timeout=PATIENCE_S).status_code == 405
    assert supervisord.running_pid("poller") == pid


def test_a_program_that_cannot_start_says_why(data_dir: Path) -> None:
    with running(data_dir) as own, world.supervisord(data_dir, {"uploader": "broken.py"}, "exitcodes=0\n"):
        browser = own.log_in()
        said = until(lambda: (text := words(own, browser, "/processes")) and ("fatal" in text or "backoff" in text) and text)
        assert "Exited too quickly" in said


def test_without_supervisord_the_page_says_so_and_logs_stay_readable(data_dir: Path) -> None:
    world.say(data_dir, "still here")
    with running(data_dir) as own:
        browser = own.log_in()
        said = words(own, browser, "/processes")
        assert "supervisord does not answer on its socket" in said
        assert "still here" in said
        assert restart(own, browser, "inference") == 503
        assert own.control.notes(1)[0]["result"].startswith("failed: ")


@pytest.mark.slow
def test_a_frozen_supervisord_holds_nobody_up_for_long(data_dir: Path) -> None:
    with running(data_dir) as own, world.supervisord(data_dir, {"inference": "steady.py"}) as programs:
        browser = own.log_in()
        os.kill(programs.first.pid, signal.SIGSTOP)
        try:
            assert "supervisord does not answer" in words(own, browser, "/processes")
        finally:
            os.kill(programs.first.pid, signal.SIGCONT)


# ---- logs -------------------------------------------------------------------------------------------------------------------


def test_a_log_is_shown_filtered_and_searched(data_dir: Path) -> None:
    world.say(data_dir, "all is well")
    world.say(data_dir, "half a batch", level="warning")
    world.say(data_dir, "no memory left", level="error", job="j1")
    world.say(data_dir, "fetched", name="poller")
    with running(data_dir) as own:
        browser = own.log_in()
        assert [line.split()[3] for line in lines(own, browser, "/processes")] == ["all", "half", "no"]
        assert [line.split()[3] for line in lines(own, browser, "/processes?level=warnings")] == ["half", "no"]
        assert [line.split()[3] for line in lines(own, browser, "/processes?level=errors")] == ["no"]
        assert [line.split()[3] for line in lines(own, browser, "/processes?q=JOB%3DJ1")] == ["no"]
        assert [line.split()[3] for line in lines(own, browser, "/processes?log=poller")] == ["fetched"]
        assert "No line matches." in words(own, browser, "/processes?q=nothing")
        assert "No such log." in words(own, browser, "/processes?log=../secret")


def test_a_log_is_text_and_nothing_else(data_dir: Path) -> None:
    world.say(data_dir, "<script>alert(1)</script> \x1b[31mred\x1b[0m \u202eevil", job="<img src=x onerror=alert(1)>")
    with running(data_dir) as own:
        browser = own.log_in()
        for path in ("/processes", "/processes/log/inference", "/processes/log/inference/download", "/bundle"):
            answer = browser.get(own.url + path, timeout=PATIENCE_S)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            if "html" in answer.headers["Content-Type"]:
                assert "<script>alert" not in answer.text, path
                assert "<img src=x" not in answer.text, path
            assert not {"\x1b", "\u202e"} & set(answer.text), path


def test_a_log_goes_on_from_its_place_and_is_downloaded(data_dir: Path) -> None:
    world.say(data_dir, "one")
    with running(data_dir) as own:
        browser = own.log_in()
        first = browser.get(f"{own.url}/processes/log/inference", timeout=PATIENCE_S).json()
        world.say(data_dir, "two")
        more = browser.get(f"{own.url}/processes/log/inference?after={first['after']}", timeout=PATIENCE_S).json()
        assert [line["text"] for line in more["lines"]] == ["two"]
        download = browser.get(f"{own.url}/processes/log/inference/download", timeout=PATIENCE_S)
        assert "attachment" in download.headers["Content-Disposition"]
        assert [line.split()[-1] for line in download.text.splitlines()] == ["one", "two"]
        for path in ("/processes/log/nobody", "/processes/log/nobody/download", "/processes/log/..%2Fsaid/download"):
            assert browser.get(own.url + path, timeout=PATIENCE_S).status_code == 404
