from __future__ import annotations

from pathlib import Path

import pytest
import requests

from jobqueue.control import Control, Flag
from tests.api.program import Api, publish_loaded, running


def test_the_container_lives(api: Api) -> None:
    assert (api.get("/hc").status_code, api.get("/hc").json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_health_is_answered_on_ipv4_and_ipv6(api: Api, host: str) -> None:
    answer = requests.get(api.url("/health", host), timeout=10)
    assert answer.status_code == 200


def test_health_tells_what_the_worker_is(api: Api) -> None:
    api.control.publish("inference", {"model_loaded": False})
    before = api.get("/health").json()
    publish_loaded(api.control)
    api.control.put_up("paused", "lunch", "test")
    after = api.get("/health")
    assert after.status_code == 200
    assert before["model_loaded"] is False
    expected = {"status": "ok", "model_loaded": True, "engine": "musetalk", "mode": "queue", "version": "0.1.0"}
    assert after.json() == expected | {"paused": True, "draining": False, "jobs_waiting": 0}


def test_an_unfit_worker_is_unhealthy_and_says_why(api: Api) -> None:
    api.control.put_up("unfit", "the card is lost", "guard")
    answer = api.get("/health")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["reason"]) == ("unhealthy", "the card is lost")


def test_a_worker_with_a_loaded_model_is_ready(api: Api) -> None:
    publish_loaded(api.control)
    assert (api.get("/ready").status_code, api.get("/ready").json()) == (200, {"ready": True})


@pytest.mark.parametrize("flag", ["paused", "draining", "unfit"])
def test_a_worker_that_would_not_start_a_job_is_not_ready_and_says_why(api: Api, flag: Flag) -> None:
    publish_loaded(api.control)
    api.control.put_up(flag, "a reason", "test")
    answer = api.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reason": f"the worker is {flag}: a reason"}


def test_a_worker_whose_inference_loads_or_has_fallen_silent_is_not_ready(api: Api) -> None:
    publish_loaded(api.control, False)
    loading = api.get("/ready")
    publish_loaded(api.control)
    _age(api.control, 31)
    silent = api.get("/ready")
    health = api.get("/health")
    assert (loading.status_code, loading.json()["reason"]) == (503, "the model is loading")
    assert (silent.status_code, silent.json()["reason"]) == (503, "inference is not running yet")
    assert (health.status_code, health.json()["model_loaded"]) == (200, False)


def test_health_is_answered_from_memory_while_the_queue_cannot_be_read(data_dir: Path) -> None:
    with running(data_dir) as api:
        publish_loaded(api.control)
        assert api.get("/health").json()["model_loaded"] is True
        api.control.database.write(lambda connection: connection.execute("alter table status rename to gone").fetchall())
        health, ready, scrape = api.get("/health"), api.get("/ready"), api.get("/metrics")
        assert (health.status_code, health.json()["model_loaded"]) == (200, True)
        assert "cannot be read" in health.json()["note"]
        assert (ready.status_code, scrape.status_code) == (503, 200)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/generate", 405), ("POST", "/hc", 405)]
)
def test_errors_are_json_without_a_traceback(api: Api, method: str, path: str, status: int) -> None:
    answer = requests.request(method, api.url(path), timeout=10)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == ["error"]


def _age(control: Control, seconds: float) -> None:
    control.database.write(
        lambda connection: connection.execute("update status set at_boot = at_boot - ?", (seconds,)).fetchall()
    )
