"""What PostgreSQL alone makes possible or wrong: several orchestrators on a database, a server that dies, passwords in URLs."""

from __future__ import annotations

import collections
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from orchestrator import database as sql
from orchestrator.postgres import Postgres, place, prepare, secrets
from orchestrator.transaction import Transaction, WrongDatabase
from tests.orchestrator.cluster import IN_URL, PASSWORD, Cluster
from tests.orchestrator.server import ROOT, TALKING_HEAD, Server, answer, answers, progress, refusal, running
from tests.patience import free_port, until


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> Iterator[tuple[Server, Server]]:
    """Two orchestrators on one database; each test takes the jobs that it puts in."""
    url = cluster.new_database()
    with running(url, "--silence-s", "3600") as one, running(url, "--silence-s", "3600") as other:
        yield one, other


def test_two_orchestrators_never_assign_a_job_twice(pair: tuple[Server, Server]) -> None:
    submitted = {pair[n % 2].submit() for n in range(100)}

    def work(n: int) -> list[str]:
        claimed = []
        while job := pair[n % 2].claim(f"w{n}"):
            claimed.append(job["musetalk_job_id"])
        return claimed

    with ThreadPoolExecutor(8) as pool:
        claimed = [job for jobs in pool.map(work, range(8)) for job in jobs]
    assert max(collections.Counter(claimed).values()) == 1
    assert set(claimed) == submitted


def test_one_claim_repeated_at_both_orchestrators_gets_one_job(pair: tuple[Server, Server]) -> None:
    submitted = [pair[0].submit() for _ in range(12)]
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda n: pair[n % 2].claim("repeater", Idempotency_Key="same"), range(8)))
    assert len({job["musetalk_job_id"] for job in claimed}) == 1
    for _ in submitted[1:]:
        assert pair[1].claim("w1")


def test_one_submission_sent_to_both_orchestrators_is_added_once(pair: tuple[Server, Server]) -> None:
    body = {**TALKING_HEAD, "musetalk_job_id": "sent-twice"}
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: pair[n % 2].post("/jobs", body).status_code, range(8)))
    assert sorted(told) == [200] * 7 + [201]
    assert pair[0].claim()["musetalk_job_id"] == "sent-twice"
    assert pair[1].claim() is None


def test_reports_at_both_orchestrators_are_accepted_once(pair: tuple[Server, Server]) -> None:
    job_id = pair[0].submit()
    pair[1].claim()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: (pair[0].succeed if n % 2 else pair[1].fail)(job_id).status_code, range(8)))
    assert set(told) == {200, 409}
    assert pair[0].verdicts(job_id).count("accepted") == 1


def test_a_text_that_the_database_cannot_hold_does_not_lose_the_report(pair: tuple[Server, Server]) -> None:
    job_id = pair[0].submit()
    pair[0].claim()
    answer(pair[0].fail(job_id, error="a\0b"))
    assert pair[1].get(f"/jobs/{job_id}")["error"] == "a\ufffdb"
    answer(pair[0].post("/internal/jobs/%00/progress", progress("w1")), 404)


def test_restarts_of_another_orchestrator_do_not_keep_the_job_of_a_dead_worker(url: str) -> None:
    with running(url, "--silence-s", "2") as server:
        job_id = server.submit()
        server.claim("dead")
        until(lambda: _restarted(url) and server.state(job_id) == "queued")


def _restarted(url: str) -> bool:
    with running(url, "--silence-s", "2"):
        return True


def test_time_in_which_no_orchestrator_was_running_is_not_silence(cluster: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    with running(url) as server:
        job_id = server.submit()
        server.claim("w1")
    cluster.run(name, "update job set vouched_at = vouched_at - 3600")
    cluster.run(name, "update listening set looked_at = looked_at - 3600")
    with running(url) as server:
        assert server.claim("other") is None
        assert server.history(job_id) == ["queued", "claimed"]
        cluster.run(name, "update job set vouched_at = vouched_at - 3600")
        assert server.claim("other")["musetalk_job_id"] == job_id


def test_a_server_that_dies_is_told_as_such_and_everything_goes_on_when_it_is_back(cluster: Cluster, url: str) -> None:
    with running(url) as server:
        kept = server.submit()
        server.claim("w1")
        cluster.stop(signal.SIGQUIT)
        claim = {"worker_id": "w1", "worker_type": "main", "gpu_class": "a card"}
        asked = (
            ("/jobs", TALKING_HEAD),
            ("/internal/main/jobs/claim", claim),
            (f"/internal/jobs/{kept}/progress", progress("w1")),
        )
        try:
            with ThreadPoolExecutor(3) as pool:
                submitted, claimed, reported = pool.map(lambda request: server.post(*request), asked)
            answer(submitted, 503)
            answer(reported, 503)
            assert answer(claimed) == {"job": None, "error": "database_unavailable"}
            assert answers(server)
        finally:
            cluster.start()
        answer(server.report(kept))
        assert server.history(kept) == ["queued", "claimed", "running"]
        added = server.submit()
        assert server.claim("w2")["musetalk_job_id"] == added


def test_many_that_start_at_once_make_the_tables_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prepare, [url] * 4))
    assert sql.jobs(Postgres(url), None, 1) == []


def test_a_transaction_that_loses_its_connection_is_run_again(cluster: Cluster, url: str) -> None:
    prepare(url)
    pids = []

    def lose_it_once(at: Transaction) -> int:
        pids.append(at("select pg_backend_pid() as pid")[0]["pid"])
        if len(pids) == 1:
            cluster.run("postgres", f"select pg_terminate_backend({pids[0]})")
            until(lambda: not cluster.run("postgres", f"select 1 from pg_stat_activity where pid = {pids[0]}"))
        return int(at("update orchestrator set version = version returning version")[0]["version"])

    assert Postgres(url).write(lose_it_once) == 1
    assert len(set(pids)) == 2


def test_the_change_of_state_of_a_person_at_a_prompt_is_checked_too(cluster: Cluster, url: str) -> None:
    prepare(url)
    Postgres(url).write(lambda at: sql.add_job(at, "j", None, {"engine": "musetalk"}))
    with pytest.raises(psycopg.errors.RaiseException, match="transition table"):
        cluster.run(url.rpartition("/")[2], "update job set state = 'running', worker = 'w'")


WRONG_URLS = [
    f"postgresql://me:{PASSWORD}@host/name",  # / and @ not encoded
    "postgresql://me:12/3pass@host/name",
    "postgresql://me:12?pass@host/name",
    "postgresql://me:pa@ss@host/name",
    "mysql://me:pass@host/name",
    "postgresql://me:pass%zz@host/name",
    "host=h password=pass",
]


@pytest.mark.parametrize("wrong", WRONG_URLS)
def test_an_url_that_cannot_be_read_is_refused_without_repeating_it(wrong: str) -> None:
    with pytest.raises(WrongDatabase, match=r"postgresql://user:password@host") as told:
        secrets(wrong)
    assert "pass@" not in str(told.value).replace("user:password@", "")
    assert "ss@host" not in str(told.value)


def test_the_password_of_an_url_is_masked_and_never_shown() -> None:
    dead = f"postgresql://me:{IN_URL}@127.0.0.1:{free_port()}/name"
    assert secrets(dead) == [PASSWORD]
    assert secrets(f"postgresql:///name?host=/run/postgresql&password={IN_URL}") == [PASSWORD]
    assert place(dead) == "PostgreSQL database name at 127.0.0.1"
    with pytest.raises(WrongDatabase, match="refused") as told:
        prepare(dead)
    assert PASSWORD not in str(told.value)
    assert IN_URL not in str(told.value)


def test_a_wrong_password_is_refused_without_showing_it(url: str) -> None:
    line = refusal(url.replace(IN_URL, "another-one"), free_port())
    assert line.startswith("DATABASE_URL: ")
    assert "another-one" not in line


def test_two_databases_or_none_are_refused(tmp_path: Path) -> None:
    for place_, variables in ((tmp_path, {"DATABASE_URL": "postgresql://h/n"}), ("", {})):
        assert "one of the two is needed" in refusal(place_, free_port(), **variables)


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no driver')\n")
    assert "psycopg[binary]" in refusal("postgresql://h/n", free_port(), PYTHONPATH=f"{tmp_path}:{ROOT}")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("create table customer (id integer)", "other tables than an orchestrator's"),
        ("create table orchestrator as select 99 as version", "has version 99"),
    ],
)
def test_tables_that_are_not_ours_are_refused(cluster: Cluster, url: str, made: str, says: str) -> None:
    cluster.run(url.rpartition("/")[2], made)
    with pytest.raises(WrongDatabase, match=says):
        prepare(url)


def test_a_database_that_cannot_hold_every_text_is_refused(cluster: Cluster, url: str) -> None:
    name = url.rpartition("/")[2] + "_latin"
    cluster.run("postgres", f"create database {name} encoding 'LATIN1' template template0")
    with pytest.raises(WrongDatabase, match="encoding LATIN1"):
        prepare(cluster.url(name))


def test_a_user_who_may_not_make_tables_is_refused(cluster: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    cluster.run(name, "create user guest password 'guests-own'; revoke create on schema public from public")
    with pytest.raises(WrongDatabase, match="cannot create tables in the PostgreSQL database"):
        prepare(url.replace(f"postgres:{IN_URL}", "guest:guests-own"))
