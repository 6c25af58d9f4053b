"""The orchestrator as a program: many at once, killed, started anew, started wrongly."""

from __future__ import annotations

import collections
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.orchestrator.server import KEY, Server, answer, refusal, running, start
from tests.patience import free_port, until


def test_many_workers_at_once_never_get_the_same_job(server: Server) -> None:
    submitted = {server.submit() for _ in range(200)}

    def work(worker: str) -> list[str]:
        claimed = []
        while job := server.claim(worker):
            claimed.append(job["musetalk_job_id"])
        return claimed

    with ThreadPoolExecutor(8) as pool:
        claimed = [job for jobs in pool.map(work, [f"w{n}" for n in range(8)]) for job in jobs]
    assert max(collections.Counter(claimed).values()) == 1
    assert set(claimed) == submitted


def test_many_reports_at_once_are_accepted_once(server: Server) -> None:
    job_id = server.submit()
    server.claim()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: (server.succeed if n % 2 else server.fail)(job_id).status_code, range(16)))
    assert set(told) == {200, 409}
    assert server.verdicts(job_id).count("accepted") == 1
    assert server.history(job_id)[:2] == ["queued", "claimed"]
    assert len(server.history(job_id)) == 3


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        waiting, held, done = (server.submit(musetalk_job_id=name) for name in ("c-waiting", "b-held", "a-done"))
        answer(server.post(f"/jobs/{waiting}/cancel"))
        server.claim("w1", Idempotency_Key="a")
        server.claim("w1")
        answer(server.succeed(done))
        before = [server.get(f"/jobs/{job_id}") for job_id in (waiting, held, done)]
    with running(tmp_path) as server:
        assert [server.get(f"/jobs/{job_id}") for job_id in (waiting, held, done)] == before
        assert server.claim("w1", Idempotency_Key="a")["musetalk_job_id"] == held
        answer(server.succeed(held))


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        job_id = server.submit()
        server.claim()
        answer(server.succeed(job_id))
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(20)
    with running(tmp_path) as server:
        assert server.verdicts(job_id) == ["accepted"]
        assert server.state(job_id) == "succeeded"


def test_a_killed_main_process_leaves_the_port_free(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        server.process.kill()
        server.process.wait(20)
    process = start(tmp_path, port)
    try:
        again = Server(process, server.url)
        until(lambda: process.poll() is not None or _submits(again))
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_second_one_on_the_same_folder_is_refused(server: Server, tmp_path: Path) -> None:
    assert "another orchestrator is using it" in refusal(tmp_path / "data", free_port())


def test_a_port_in_use_is_refused(server: Server, tmp_path: Path) -> None:
    port = int(server.url.rpartition(":")[2])
    assert f"--port {port}" in refusal(tmp_path / "other", port)


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orchestrator.db").write_bytes(b"a text, not a database" * 100)
    assert "not a database" in refusal(tmp_path, free_port())


def test_the_key_may_come_from_the_environment_whatever_else_of_a_workers_is_there(tmp_path: Path) -> None:
    port = free_port()
    process = start(tmp_path, port, INTERNAL_API_KEY=f" {KEY} ", WORKER_TYPE="main", ADMIN_PASSWORD="short")
    try:
        until(lambda: process.poll() is not None or _submits(Server(process, f"http://127.0.0.1:{port}")))
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("key", "says"), [("", "is missing; set it"), ("  ", "is missing"), ("a\nb", "must be one line of text")]
)
def test_a_key_that_cannot_be_sent_is_refused(tmp_path: Path, key: str, says: str) -> None:
    assert says in refusal(tmp_path, free_port(), INTERNAL_API_KEY=key)


def _submits(server: Server) -> bool:
    try:
        server.submit()
    except OSError:
        return False
    return True
