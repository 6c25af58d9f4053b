from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from poller.orchestrator import MAX_LEFT_BEHIND, Orchestrator
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import Behaviour, FakeOrchestrator
from tests.patience import until


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (behaviours.says({"detail": "ok"}), "ok"),
        (behaviours.says({"detail": "ok"}, 202), "ok"),
        (behaviours.says_raw(b"", 204), "ok"),
        (behaviours.says_raw(b"thanks"), "ok"),
        (behaviours.says({}, 404), "gone"),
        (behaviours.says({}, 409), "gone"),
        (behaviours.says({}, 410), "gone"),
        (behaviours.says({}, 401), "refused"),
        (behaviours.says({}, 422), "refused"),
        (behaviours.error_page(500), "down"),
        (behaviours.error_page(503), "down"),
        (behaviours.says_raw(b"", 307, Location="https://elsewhere.example/"), "down"),
        (behaviours.says_raw(b"x" * 2_000_000), "down"),
        (behaviours.drops(), "down"),
    ],
)
def test_an_answer_is_told_by_its_status(fake: FakeOrchestrator, behaviour: Behaviour, kind: str) -> None:
    fake.script = lambda heard: behaviour
    assert Orchestrator(fake.url, "key").progress("musetalk", "j", {}).kind == kind


@pytest.mark.parametrize("content", [b"<html>502</html>", b"[]", b'"job"', b"", b"null", b"[" * 100_000, b'{"job": '])
def test_a_claim_that_is_answered_with_anything_but_an_object_is_no_answer(fake: FakeOrchestrator, content: bytes) -> None:
    fake.script = lambda heard: behaviours.says_raw(content)
    answer = Orchestrator(fake.url, None).claim("main", {}, "k")
    assert (answer.kind, answer.body) == ("down", {})


@pytest.mark.parametrize("behaviour", [behaviours.hangs(), behaviours.drips(), behaviours.drips_body()])
def test_a_call_ends_in_time_whatever_the_server_does(fake: FakeOrchestrator, behaviour: Behaviour) -> None:
    fake.script = lambda heard: behaviour
    began = time.monotonic()
    assert Orchestrator(fake.url, None, timeout_s=0.5).progress("musetalk", "j", {}).kind == "down"
    assert time.monotonic() - began < 5


def test_a_refused_connection_is_said_in_a_few_words() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        answer = Orchestrator(f"http://127.0.0.1:{free.getsockname()[1]}", None).heartbeat("main", "w", {})
    assert (answer.kind, answer.text) == ("down", "ConnectionRefusedError: Connection refused")


@pytest.mark.parametrize(
    "behaviour",
    [
        behaviours.hangs(),
        pytest.param(behaviours.drips(), marks=pytest.mark.slow),
        pytest.param(behaviours.drips_body(), marks=pytest.mark.slow),
    ],
)
def test_calls_that_were_left_behind_end_although_their_server_goes_on(fake: FakeOrchestrator, behaviour: Behaviour) -> None:
    fake.script = lambda heard: behaviour
    before = set(threading.enumerate())
    orchestrator = Orchestrator(fake.url, None, timeout_s=0.2)
    for _ in range(MAX_LEFT_BEHIND + 8):
        orchestrator.heartbeat("main", "w", {})
    fake.script = lambda heard: behaviours.says({})
    until(lambda: orchestrator.heartbeat("main", "w", {}).kind == "ok")
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "call" and thread not in before])


def test_calls_that_hang_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> None:  # a look-up of a name has no connection yet that could be cut
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    orchestrator = Orchestrator("http://orchestrator.example", None, timeout_s=0.05)
    texts = {orchestrator.progress("musetalk", "j", {}).text for _ in range(30)}
    over.set()
    assert any("still hang" in text for text in texts)


@pytest.mark.parametrize(
    ("job_id", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a b?c#d%e", "a%20b%3Fc%23d%25e"),
        ("ä", "%C3%A4"),
        ("../../x", "..%2F..%2Fx"),
        ("id-1.2:3_4", "id-1.2%3A3_4"),
    ],
)
def test_an_id_stays_one_segment_of_the_path(fake: FakeOrchestrator, job_id: str, segment: str) -> None:
    Orchestrator(fake.url, None).progress("fastwan", job_id, {})
    assert fake.heard[0].path == f"/internal/videogen/jobs/{segment}/progress"


def test_an_error_page_that_repeats_the_key_does_not_bring_it_into_the_log(fake: FakeOrchestrator) -> None:
    fake.script = lambda heard: behaviours.says_raw(b"bad key: a-secret-key", 401)
    assert Orchestrator(fake.url, "a-secret-key").progress("musetalk", "j", {}).text == "HTTP 401: bad key: ••••"


def test_a_redirect_is_not_followed_and_its_query_not_told(fake: FakeOrchestrator) -> None:
    fake.script = lambda heard: behaviours.says_raw(b"", 301, Location="https://else.example/x?token=1")
    answer = Orchestrator(fake.url, None).progress("musetalk", "j", {})
    assert (answer.kind, answer.text) == ("down", "HTTP 301: it redirects to https://else.example/x")


def test_every_request_has_the_key_and_json(fake: FakeOrchestrator) -> None:
    orchestrator = Orchestrator(fake.url + "/", "a-key")
    orchestrator.claim("buffer", {"worker_id": "w"}, "claim-1")
    orchestrator.buffer_status("b-1", {"status": "failed"})
    claim, status = fake.heard
    assert (claim.path, status.path) == ("/internal/buffer/jobs/claim", "/internal/buffer/jobs/b-1/status")
    assert all(heard.headers["X-Internal-API-Key"] == "a-key" for heard in fake.heard)
    assert all(heard.headers["Content-Type"] == "application/json" for heard in fake.heard)
    assert claim.headers["Idempotency-Key"] == "claim-1"
    assert "Idempotency-Key" not in status.headers
