"""What the pages say and do, from outside, by their text alone: they must be right without JavaScript."""

from __future__ import annotations

import hashlib
import html
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from admin import words
from jobqueue.job import FETCH, GENERATE
from tests.admin.program import ROOT, Admin, add_done, add_failed, arrival, running
from tests.patience import PATIENCE_S, until

OUT_OF_MEMORY = {
    "message": "the GPU ran out of memory: 23.1 of 24.0 GiB used",
    "error_type": "processing_error",
    "retryable": True,
    "stage": "inference",
    "details": {"batch_size": 16},
    "stack_trace": "Traceback: somewhere deep",
}
LOADED = {"engine": "musetalk", "model_loaded": True, "device": "cuda:0"}


@pytest.fixture(scope="module", autouse=True)
def jobs(admin: Admin) -> None:
    for n in range(27):
        add_failed(admin.queue, f"failed-{n:02}", {**OUT_OF_MEMORY, "message": f"failure of kind {n % 3}"})
    add_done(admin.queue, admin.data_dir, "done-1")
    add_failed(admin.queue, "memory-1", OUT_OF_MEMORY)
    admin.queue.add(arrival("mistake-1"))
    admin.queue.cancel("mistake-1", "sent by mistake")
    admin.queue.add(arrival("waiting-1", video_url="https://media.example/face.mp4?sig=hidden"))


def text(admin: Admin, browser: requests.Session, path: str) -> str:
    """A page's words: tags out, entities read, white space folded."""
    answer = browser.get(admin.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def listed(admin: Admin, browser: requests.Session, path: str) -> list[str]:
    """The ids that a list shows, from the top."""
    return re.findall(r'class="id">.*?<a href="/jobs/([^"]+)"', browser.get(admin.url + path, timeout=PATIENCE_S).text)


# ---- overview ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "inference", "word", "says"),
    [
        (None, LOADED, "active", "No jobs. Submit one with worker submit VIDEO AUDIO or POST /generate ."),
        (None, {**LOADED, "model_loaded": False, "reason": "musetalk is loading"}, "starting", "musetalk is loading. No job"),
        ("paused", LOADED, "paused", "by cli:root: a new card. Running jobs finish"),
        ("draining", LOADED, "draining", "by cli:root: a new card. The container exits when every job is done and reported."),
        ("unfit", LOADED, "unfit", "Unfit: a new card. No job is claimed until this is fixed."),
        (None, None, "stopped", "Not responding: poller, inference, uploader"),
    ],
)
def test_the_overview_says_how_the_worker_is(
    data_dir: Path, flag: Any, inference: dict[str, Any] | None, word: str, says: str
) -> None:
    with running(data_dir) as own:
        if flag:
            own.control.put_up(flag, "a new card", "cli:root")
        if inference:
            own.control.publish("inference", inference)
        page = own.log_in().get(f"{own.url}/", timeout=PATIENCE_S).text
        assert f'<span class="badge {word}" id="mode">{word}</span>' in page
        assert f"<title>{word} · " in page
        said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
        assert says in said
        assert ("Resume" in said) == (flag in ("paused", "draining"))
        assert "orchestrator none: standalone" in said


def test_the_overview_says_what_the_links_and_the_card_are_doing(data_dir: Path) -> None:
    card = {"name": "RTX 3090", "utilization_gpu": 92, "memory_total_mib": 24576, "memory_used_mib": 11468}
    card |= {"temperature_c": 71, "power_w": 244.3, "power_limit_w": 350.0, "throttle_reasons": ["power cap"]}
    machine = {"ram_total_gb": 32.0, "ram_available_gb": 22.9, "disk_total_gb": 500, "disk_free_gb": 1.4}
    at = "2026-01-02T03:04:05.678Z"
    poller = {"gpus": [card, {"name": "Lost card", "lost": True}], "system_info": machine}
    poller |= {"orchestrator": {"ok": False, "error": "connection refused"}, "claim": {"at": at, "result": "no job"}}
    main = {"WORKER_TYPE": "main", "ORCHESTRATOR_BASE_URL": "https://orch.example/base?k=v", "INTERNAL_API_KEY": "k" * 20}
    with running(data_dir, **main) as own:
        own.control.publish("inference", LOADED)
        own.control.publish("poller", poller)
        own.control.publish("uploader", {"store": "b2", "ok": False, "error": "the key is not valid"})
        said = text(own, own.log_in(), "/")
    for sentence in (
        "The orchestrator does not answer : connection refused. Finished jobs are kept and reported later.",
        "The store rejects uploads : the key is not valid. Finished videos wait on this machine.",
        "The disk is almost full: 1.4 GB are free.",
        "last attempt 2026-01-02 03:04:05 UTC : no job",
        "GPU memory 11.2 of 24.0 GiB",
        "71 °C · 244 of 350 W",
        "throttled by power cap",
        "Lost card lost The card has fallen off the bus",
        "GPU busy n/a",
        "engine musetalk on cuda:0",
    ):
        assert sentence in said, said
    assert "k=v" not in said


def test_the_overview_counts_and_shows_the_last_jobs(admin: Admin, browser: requests.Session) -> None:
    said = text(admin, browser, "/")
    assert "1 waiting 0 running 0 to upload 1 done in 24 h 28 failed in 24 h 30 reports to send 0 % busy in 1 h" in said
    assert "No NVIDIA GPU is visible" in said
    assert listed(admin, browser, "/")[:3] == ["mistake-1", "memory-1", "done-1"]


def test_a_running_job_shows_how_far_it_is(data_dir: Path) -> None:
    with running(data_dir) as own:
        add_failed(own.queue, "before", OUT_OF_MEMORY)
        own.queue.add(arrival("now-1"))
        own.control.publish("inference", LOADED)
        fetch = own.queue.take(FETCH, "poller/test")
        assert fetch
        own.queue.done(FETCH, fetch, {})
        job = own.queue.take(GENERATE, "inference/test")
        assert job
        own.queue.progress(job, "inferring", 0.634, 473, 750)
        browser = own.log_in()
        for path in ("/", "/jobs/now-1"):
            said = text(own, browser, path)
            assert "frame 473 of 750" in said
            assert "63 %" in said
            assert " left" in said
        assert "<title>63% · " in browser.get(f"{own.url}/", timeout=PATIENCE_S).text
        own.queue.cancel("now-1", "not needed")
        assert "being cancelled" in text(own, browser, "/")
        assert "Cancellation requested: not needed" in text(own, browser, "/jobs/now-1")


# ---- the list ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("state=done", ["done-1"]),
        ("state=cancelled", ["mistake-1"]),
        ("state=open", ["waiting-1"]),
        ("q=memory-1", ["memory-1"]),
        ("q=ran+out+of", ["memory-1"]),
        ("q=kind+1&state=failed", [f"failed-{n:02}" for n in range(25, 0, -3)]),
        ("q=kind+1&state=done", []),
        ("q=%25", []),
        ("state=nonsense&q=done", ["done-1"]),
    ],
)
def test_the_list_is_filtered_by_state_and_text(admin: Admin, browser: requests.Session, query: str, ids: list[str]) -> None:
    assert listed(admin, browser, f"/jobs?{query}") == ids


def test_the_list_goes_on_page_by_page_and_keeps_its_filters(admin: Admin, browser: requests.Session) -> None:
    first = browser.get(f"{admin.url}/jobs?state=failed&q=failure", timeout=PATIENCE_S).text
    older = re.search(r'href="(/jobs[^"]*)">Older', first)
    assert older
    assert "‹ Newest" not in first
    path = html.unescape(older[1])
    seen = listed(admin, browser, "/jobs?state=failed&q=failure") + listed(admin, browser, path)
    assert seen == [f"failed-{n:02}" for n in range(26, -1, -1)]
    second = browser.get(admin.url + path, timeout=PATIENCE_S).text
    assert "Older ›" not in second
    assert "‹ Newest" in second


def test_a_list_that_finds_nothing_says_so_and_shows_the_way_back(admin: Admin, browser: requests.Session) -> None:
    assert "No job matches done with nothing<b>" in text(admin, browser, "/jobs?state=done&q=nothing%3Cb%3E")
    assert "all 31 open 1 done 1 failed 28 cancelled 1" in text(admin, browser, "/jobs")


# ---- one job ----------------------------------------------------------------------------------------------------------------


def test_a_finished_job_shows_its_timeline_video_and_figures(admin: Admin, browser: requests.Session) -> None:
    page = browser.get(f"{admin.url}/jobs/done-1", timeout=PATIENCE_S).text
    steps = re.findall(r'<span class="word">([^<]+)</span>', page)
    assert steps == [
        "queued",
        "downloading",
        "waiting for the GPU",
        "running",
        "waiting for upload",
        "uploading",
        "done",
    ]
    for kind in ("output", "video", "audio"):
        assert f'src="/jobs/done-1/files/{kind}"' in page
    said = text(admin, browser, "/jobs/done-1")
    for figure in ("inference took 21.4 s", "frames 500", "Stored at https://store.example/done-1.mp4", "Download"):
        assert figure in said
    assert "/retry" not in page
    assert "/cancel" not in page


def test_a_failed_job_says_why_and_what_helps(admin: Admin, browser: requests.Session) -> None:
    said = text(admin, browser, "/jobs/memory-1")
    assert "This worker could not process it the GPU ran out of memory: 23.1 of 24.0 GiB used" in said
    assert "Try: Close other programs on the GPU, or set a lower BATCH_SIZE." in said
    assert "processing_error at inference, a retry may succeed · batch_size 16" in said
    assert "Traceback: somewhere deep" in said


def test_a_job_page_says_what_became_of_the_report(data_dir: Path) -> None:
    with running(data_dir) as own:
        add_failed(own.queue, "j1", OUT_OF_MEMORY)
        browser, (event, _) = own.log_in(), own.outbox.due()[0]
        assert "The report is being sent." in text(own, browser, "/jobs/j1")
        own.outbox.again(event, "connection refused", 60)
        assert "Sending the report failed once and is retried: connection refused" in text(own, browser, "/jobs/j1")
        own.outbox.sent(event, "200")
        assert re.search(r"Reported \S+ \S+ UTC : 200", text(own, browser, "/jobs/j1"))
        assert own.queue.retry("j1")
        assert own.queue.cancel("j1", "not needed")
        own.outbox.sent(own.outbox.due()[0][0], "nobody to tell")
        assert "No report needed." in text(own, browser, "/jobs/j1")


def test_links_are_shown_without_what_signs_them(admin: Admin, browser: requests.Session) -> None:
    said = text(admin, browser, "/jobs/waiting-1")
    assert "https://media.example/face.mp4?" in said
    assert "hidden" not in said


def test_an_unknown_job_is_not_found_in_plain_words(admin: Admin, browser: requests.Session) -> None:
    answer = browser.get(f"{admin.url}/jobs/nobody", timeout=PATIENCE_S)
    assert answer.status_code == 404
    assert "No job nobody on this worker. It may have run on another worker" in answer.text


def test_a_very_long_id_is_cut_where_jobs_are_listed(data_dir: Path) -> None:
    with running(data_dir) as own:
        job_id = "x" * 3000
        own.queue.add(arrival(job_id))
        browser = own.log_in()
        for path in ("/", "/jobs"):
            assert "x" * 79 + "…" in text(own, browser, path)
            assert job_id not in text(own, browser, path)
        assert job_id in text(own, browser, f"/jobs/{job_id}")


# ---- actions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", "  \t "])
def test_pause_and_cancel_need_a_reason(admin: Admin, browser: requests.Session, reason: str) -> None:
    assert admin.post(browser, "/pause", reason=reason) == 400
    assert admin.post(browser, "/jobs/waiting-1/cancel", reason=reason) == 400
    assert admin.control.flag("paused") is None
    job = admin.queue.get("waiting-1")
    assert job
    assert job.state == "claimed"


def test_pause_and_resume_do_so_and_are_noted(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser = own.log_in()
        assert own.post(browser, "/pause", reason="a new card") == 303
        flag = own.control.flag("paused")
        assert flag
        assert flag["reason"] == "a new card"
        assert re.fullmatch(r"web:[0-9a-f]{8}@127\.0\.0\.1", flag["by"])
        assert own.post(browser, "/resume") == 303
        assert own.control.flag("paused") is None
        notes = [(note["action"], note["reason"], note["result"]) for note in own.control.notes()]
        assert notes == [("resume", None, "done"), ("pause", "a new card", "done"), ("log in", None, "done")]
        assert {note["actor"] for note in own.control.notes() if note["action"] != "log in"} == {flag["by"]}


def test_only_failed_and_cancelled_jobs_can_be_retried(data_dir: Path) -> None:
    with running(data_dir) as own:
        add_done(own.queue, own.data_dir, "good")
        add_failed(own.queue, "bad", OUT_OF_MEMORY)
        own.queue.add(arrival("open"))
        own.queue.add(arrival("gone"))
        browser = own.log_in()
        assert own.post(browser, "/jobs/gone/cancel", reason="not needed") == 303
        offered = {
            name: '/retry"' in browser.get(f"{own.url}/jobs/{name}", timeout=PATIENCE_S).text
            for name in ("good", "bad", "open", "gone")
        }
        assert offered == {"good": False, "bad": True, "open": False, "gone": True}
        for name in offered:
            assert own.post(browser, f"/jobs/{name}/retry") == 303
        rounds = {name: (job.state, job.round) for name in offered if (job := own.queue.get(name))}
        assert rounds == {"good": ("succeeded", 1), "bad": ("claimed", 2), "open": ("claimed", 1), "gone": ("claimed", 2)}
        notes = {(note["action"], note["target"]): note["result"] for note in own.control.notes() if note["target"]}
        assert notes[("cancel", "gone")] == "done"
        assert [notes[("retry", name)] for name in offered] == ["nothing to do", "done", "nothing to do", "done"]


def test_acting_on_an_unknown_job_is_refused(admin: Admin, browser: requests.Session) -> None:
    assert admin.post(browser, "/jobs/nobody/retry") == 404
    assert admin.post(browser, "/jobs/nobody/cancel", reason="why not") == 404


# ---- freshness --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/waiting-1"])
def test_a_page_is_sent_again_only_when_something_changed(admin: Admin, browser: requests.Session, path: str) -> None:
    def look(etag: str) -> requests.Response:
        return browser.get(admin.url + path, headers={"If-None-Match": etag}, timeout=PATIENCE_S)

    for _ in range(2):  # the minute may turn between two looks, once
        etag = look("")
        again = look(etag.headers["ETag"])
        if again.status_code == 304:
            break
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["ETag"] == etag.headers["ETag"]
    admin.control.note("test", "something", None, None, "done")
    until(lambda: look(etag.headers["ETag"]).status_code == 200)  # what was read is good for a second look
    changed = look("")
    assert changed.headers["ETag"] != etag.headers["ETag"]


# ---- words and files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.6, "60 s"), (100, "1 min 40 s"), (3599, "59 min 59 s"), (7384, "2 h 03 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert words.lasted(seconds) == said


def test_files_of_others_are_as_they_were_published() -> None:
    folder = ROOT / "admin" / "static" / "vendor"
    noted = re.findall(r"^([0-9a-f]{64})  (\S+)$", (folder / "VENDOR.txt").read_text(), re.MULTILINE)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"VENDOR.txt"}
    assert {name for _, name in noted} == there
    for digest, name in noted:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
