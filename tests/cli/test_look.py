"""What can be seen from the command line."""

from __future__ import annotations

import json
from dataclasses import replace

from operations import Operator
from tests.cli.conftest import Run
from tests.cli.test_operate import add, fail
from tests.jobqueue.test_outbox import LOST, RUNNING


def test_status_is_one_screen(worker: Run, operator: Operator) -> None:
    fail(operator, "job-1")
    add(operator, "job-2")
    operator.control.put_up("paused", "swap PSU", "test")
    operator.control.publish("inference", {"engine": "preview", "model_loaded": True, "device": "cpu"})
    screen = worker("status").stdout
    assert len(screen.splitlines()) < 25
    assert "not running, paused (swap PSU)" in screen
    assert "engine preview on cpu, loaded" in screen
    assert "1 claimed, 1 failed" in screen
    assert "it broke" in screen
    assert "\x1b" not in screen


def test_a_worker_without_an_orchestrator_misses_none(worker: Run, operator: Operator) -> None:
    operator.control.publish("poller", {"orchestrator": {}, "gpus": []})
    assert "orchestrator" not in worker("status").stdout
    operator.control.publish("poller", {"orchestrator": {"ok": False, "error": "no answer"}})
    assert "orchestrator down: no answer" in worker("status").stdout


def test_status_in_json(worker: Run, operator: Operator) -> None:
    add(operator)
    status = json.loads(worker("status", "--json").stdout)
    assert (status["running"], status["jobs"], status["unfinished"][0]["id"]) == (False, {"claimed": 1}, "job-1")


def test_jobs_can_be_chosen_by_state_and_number(worker: Run, operator: Operator) -> None:
    fail(operator, "job-1")
    for number in (2, 3):
        add(operator, f"job-{number}")
    listed = [job["id"] for job in json.loads(worker("jobs", "--json").stdout)]
    assert listed == ["job-3", "job-2", "job-1"]
    assert worker("jobs", "--state", "failed").stdout.startswith("job-1 ")
    assert len(worker("jobs", "-n", "1").stdout.splitlines()) == 1
    assert worker("jobs", "--state", "asleep").returncode == 2


def test_a_job_is_shown_with_its_history(worker: Run, operator: Operator) -> None:
    fail(operator)
    detail = worker("jobs", "job-1").stdout
    assert "it broke" in detail
    assert [word for word in ("claimed", "fetching", "failed") if f"  {word}" in detail] == ["claimed", "fetching", "failed"]
    history = json.loads(worker("jobs", "job-1", "--json").stdout)["history"]
    assert [event["state"] for event in history] == ["claimed", "fetching", "failed"]


def test_a_job_is_shown_with_the_newest_of_its_reports(worker: Run, operator: Operator) -> None:
    fail(operator)
    assert "reports" not in worker("jobs", "job-1").stdout.splitlines()
    told = [*(replace(RUNNING, job="job-1", progress=0.05 * number) for number in range(12)), replace(LOST, job="job-1")]
    for report in told:
        operator.outbox.keep(report)
    lines = worker("jobs", "job-1").stdout.splitlines()
    shown = lines[lines.index("reports (the newest 10 of 13)") + 1 :]
    assert len(shown) == 10
    assert shown[-2].split() == [RUNNING.at, "progress", "running", "55%", "inferring", "200", "12", "ms", '{"detail":"ok"}']
    assert shown[-1].split() == [LOST.at, "progress", "failed", "10%", "failed", "-", "12", "ms", *LOST.words.split()]
    reports = json.loads(worker("jobs", "job-1", "--json").stdout)["reports"]
    assert len(reports) == 13
    assert (reports[-1]["status"], reports[-1]["words"], reports[-1]["took_ms"]) == (None, "no answer within 10 s", 12.5)
