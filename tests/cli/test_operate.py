"""What an operator can do from the command line, with the page off and no program running."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from entrance import login_hash
from errors import EngineFailed
from jobqueue import clock
from jobqueue.job import FETCH, NewJob
from operations import Operator
from tests.cli.conftest import Run


def add(operator: Operator, job_id: str = "job-1") -> None:
    operator.queue.add(NewJob(id=job_id, source="main", engine="musetalk", inputs={}))


def fail(operator: Operator, job_id: str = "job-1") -> None:
    add(operator, job_id)
    job = operator.queue.take(FETCH, "poller/1")
    assert job is not None
    operator.queue.fail(job, EngineFailed("it broke").as_json("download"))


def test_pause_and_resume_raise_and_lower_the_flag(worker: Run, operator: Operator) -> None:
    assert json.loads(worker("pause", "--reason", "swap PSU", "--json").stdout) == {"paused": True, "changed": True}
    flag = operator.control.flag("paused")
    assert flag is not None
    assert flag["reason"] == "swap PSU"
    assert worker("pause").stdout == "already paused\n"
    assert worker("resume").stdout == "resumed\n"
    assert operator.control.flags() == {}
    assert json.loads(worker("resume", "--json").stdout)["changed"] is False


def test_what_an_operator_does_is_in_the_audit_trail(worker: Run, operator: Operator) -> None:
    worker("drain", "--reason", "new image")
    note = operator.control.notes()[0]
    assert (note["action"], note["reason"], note["result"]) == ("drain", "new image", "done")
    assert note["actor"].startswith("cli:")


def test_cancel_ends_a_waiting_job(worker: Run, operator: Operator) -> None:
    add(operator)
    assert json.loads(worker("cancel", "job-1", "--json").stdout) == {"job": "job-1", "state": "cancelled"}
    done = worker("cancel", "job-1")
    assert (done.returncode, done.stderr) == (5, "job-1: is cancelled already\n")


def test_retry_begins_a_failed_job_anew(worker: Run, operator: Operator) -> None:
    fail(operator)
    assert worker("retry", "job-1").stdout == "job-1 will be retried, round 2\n"
    done = worker("retry", "job-1")
    assert (done.returncode, done.stderr) == (5, "job-1: is claimed; only failed and cancelled jobs can be retried\n")


@pytest.mark.parametrize("command", [("cancel", "job-9"), ("retry", "job-9"), ("jobs", "job-9")])
@pytest.mark.usefixtures("operator")
def test_an_unknown_job_is_4(worker: Run, command: tuple[str, ...]) -> None:
    done = worker(*command)
    assert (done.returncode, done.stderr) == (4, "job-9: no such job\n")


def test_submit_takes_files_and_links(worker: Run, operator: Operator, folder: Path) -> None:
    (folder / "face.mp4").write_bytes(b"video")
    done = worker("submit", "face.mp4", "https://example.com/a.wav", "--param", "resolution=256x256", "--json")
    job = operator.queue.get(json.loads(done.stdout)["job"])
    assert job is not None
    assert job.source == "local"
    assert Path(job.inputs["video_url"].removeprefix("file://")).read_bytes() == b"video"
    assert job.inputs["audio_url"] == "https://example.com/a.wav"
    assert job.inputs["resolution"] == "256x256"


def test_submit_of_a_picture_and_a_prompt(worker: Run, operator: Operator) -> None:
    arguments = ("--image", "https://example.com/i.png", "--prompt", "she smiles", "--param", "seed=7")
    done = worker("submit", *arguments, ENGINE="fastwan")
    job = operator.queue.get(done.stdout.strip())
    assert job is not None
    assert (job.engine, job.inputs["prompt"], job.inputs["seed"]) == ("fastwan", "she smiles", 7)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("none.mp4", "https://example.com/a.wav"), "none.mp4: no such file"),
        (("https://example.com/v.mp4",), "audio_url: "),
        (("https://example.com/v.mp4", "https://example.com/a.wav", "--param", "resolution=big"), "resolution: must look like"),
        (("https://example.com/v.mp4", "https://example.com/a.wav", "--param", "big"), "--param big: must look like"),
        (("https://example.com/v.mp4", "--param", "audio_url=5"), "audio_url: is missing; must be an http:// or https:// link"),
    ],
)
@pytest.mark.usefixtures("operator")
def test_a_wrong_job_is_refused_with_one_line(worker: Run, arguments: tuple[str, ...], line: str) -> None:
    done = worker("submit", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_waiting_where_no_worker_runs_says_so_and_ends_when_the_time_is_up(worker: Run, operator: Operator) -> None:
    links = ("https://example.com/v.mp4", "https://example.com/a.wav")
    done = worker("submit", *links, "--wait", "--timeout", "0.3", "--json")
    found = json.loads(done.stdout)
    first, last = done.stderr.splitlines()
    assert (done.returncode, found["state"], found["output_url"]) == (3, "claimed", None)
    assert first == f"{found['job']}: no worker is running; the job waits for worker up"
    assert last.startswith(f"{found['job']}: is claimed after 0.3 s and stays in the queue")
    assert operator.queue.get(found["job"])
    assert worker("submit", *links, "--timeout", "1").returncode == 2


@pytest.mark.parametrize(("said", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)])
def test_a_pause_for_a_time_says_when_it_ends(worker: Run, operator: Operator, said: str, seconds: float) -> None:
    assert worker("pause", "--reason", "lunch", "--for", said).stdout == "paused\n"
    flag = operator.control.flag("paused")
    assert flag
    assert flag["until_boot_s"] - clock.now() == pytest.approx(seconds, abs=20)


@pytest.mark.parametrize("said", ["", "10", "h", "1h 30m", "-1m", "1w", "0s", "99d", "infd"])
@pytest.mark.usefixtures("operator")
def test_a_time_that_makes_no_sense_is_refused(worker: Run, said: str) -> None:
    for command in (("pause", "--for"), ("drain", "--deadline")):
        done = worker(*command, said)
        assert done.returncode == 2
        assert "must be a time" in done.stderr


def test_files_are_deleted_of_jobs_that_are_over(worker: Run, operator: Operator) -> None:
    fail(operator, "over")
    add(operator, "open")
    operator.queue.cancel("open", "not yet")
    add(operator, "waits")
    done = json.loads(worker("delete-files", "open", "over", "waits", "--reason", "a customer asked", "--json").stdout)
    assert done == {"asked": 3, "done": ["open", "over"]}
    assert operator.control.discards() == ["open", "over"]
    refused = worker("delete-files", "waits")
    assert (refused.returncode, refused.stderr) == (5, "none of these jobs has ended\n")


def test_a_job_is_handed_in_like_another_one(worker: Run, operator: Operator) -> None:
    links = {"video_url": "https://media.example/v.mp4", "audio_url": "https://media.example/a.wav"}
    operator.queue.add(NewJob(id="model", source="main", engine="musetalk", inputs=links, params={"loop": "hold"}))
    name = worker("submit", "--like", "model").stdout.strip()
    job = operator.queue.get(name)
    assert job
    assert (job.source, job.inputs["video_url"], job.params) == ("local", links["video_url"], {"loop": "hold"})
    assert worker("submit", "--like", "nobody").returncode == 4
    assert worker("submit", "--like", "model", "--sample").returncode == 2


def test_many_jobs_are_retried_and_cancelled_at_once(worker: Run, operator: Operator) -> None:
    for job_id in ("one", "two"):
        fail(operator, job_id)
    assert worker("retry", "one", "two", "none").stdout == "2 of 3 jobs will be retried\n"
    assert json.loads(worker("cancel", "one", "two", "--json").stdout) == {"asked": 2, "done": ["one", "two"]}
    assert worker("cancel", *(f"job-{number}" for number in range(501))).stderr == "501 jobs; at most 500 at once\n"


def test_the_sample_job_needs_nothing(worker: Run, operator: Operator) -> None:
    job = operator.queue.get(worker("submit", "--sample", ENGINE="preview").stdout.strip())
    assert job
    assert job.id.startswith("sample-")
    assert worker("submit", "--sample", "face.mp4").returncode == 2


@pytest.mark.usefixtures("operator")
def test_a_restart_without_a_worker_says_so(worker: Run) -> None:
    done = worker("restart", "inference", "--reason", "a leak")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("the worker is not running: ")
    assert worker("restart", "guard").returncode == 2


def test_a_log_in_link_is_made_on_demand(worker: Run, operator: Operator) -> None:
    link = json.loads(worker("login-url", "--json").stdout)["login_url"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/login#code=[2-9A-Z]{4}-[2-9A-Z]{4}", link)
    assert operator.control.use_login(login_hash(link.split("=")[1]), time.time())


def test_the_audit_trail_is_read_and_searched(worker: Run, operator: Operator) -> None:
    operator.pause("lunch")
    operator.resume()
    lines = worker("audit").stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["test resume: done", "test pause (lunch): done"]
    assert len(json.loads(worker("audit", "LUNCH", "--json").stdout)) == 1


def test_the_trail_says_from_where_somebody_came(worker: Run, operator: Operator) -> None:
    worker("pause", SSH_CLIENT="192.0.2.7 50000 22")
    assert operator.control.notes(1)[0]["actor"].endswith("@192.0.2.7")
