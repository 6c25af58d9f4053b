"""PROTOCOL.md §3, said to a real process in plain HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.orchestrator.server import BEAT, BUFFER_BEAT, KEY, SUCCEEDED, TALKING_HEAD, Server, answer, progress

ENDPOINTS = [
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("GET", "/workers"),
    ("POST", "/internal/main/jobs/claim"),
    ("POST", "/internal/buffer/jobs/claim"),
    ("POST", "/internal/main/workers/w1/heartbeat"),
    ("POST", "/internal/buffer/workers/w1/heartbeat"),
    ("POST", "/internal/jobs/j/progress"),
    ("POST", "/internal/videogen/jobs/j/progress"),
    ("POST", "/internal/buffer/jobs/j/status"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_nothing_is_said_without_the_key(shared: Server, method: str, path: str) -> None:
    for headers in ({}, {"X-Internal-API-Key": KEY + "x"}, {"X-Internal-API-Key": "schlüssel".encode()}):
        response = requests.request(method, shared.url + path, json={}, headers=headers, timeout=20)
        assert "X-Internal-API-Key" in answer(response, 401)["detail"]


def test_a_claim_without_work_says_so_in_the_words_of_each_queue(shared: Server) -> None:
    body = {"worker_id": "w1", "worker_type": "transient", "gpu_class": "a card"}
    assert answer(shared.post("/internal/main/jobs/claim", body)) == {"job": None, "error": None}
    assert answer(shared.post("/internal/buffer/jobs/claim", {"worker_id": "b1"})) == {"job": None}


def test_a_talking_head_job_is_handed_out_with_the_contracts_defaults(shared: Server) -> None:
    job_id = shared.submit()
    inputs = {name: value for name, value in TALKING_HEAD.items() if name != "engine"}
    assert shared.claim() == {"musetalk_job_id": job_id, **inputs, "aspect_ratio": "1:1", "resolution": "512x512"}


def test_what_was_submitted_is_handed_out(shared: Server) -> None:
    chosen = {"musetalk_job_id": "mine-1", "aspect_ratio": "16:9", "resolution": "1280x720", "params": {"a": [1]}}
    shared.submit(**chosen)
    assert chosen.items() <= shared.claim().items()


def test_a_fastwan_job_is_handed_out_with_the_contracts_defaults(shared: Server) -> None:
    job_id = shared.submit(engine="fastwan", image_url="https://files.example/i.png", prompt="a walk", steps=5)
    assert shared.claim() == {
        "musetalk_job_id": job_id,
        "image_url": "https://files.example/i.png",
        "prompt": "a walk",
        "num_frames": 121,
        "width": 720,
        "height": 1280,
        "steps": 5,
        "seed": 42,
        "guidance_scale": 1.0,
    }


def test_a_fastwan_job_may_have_no_prompt(shared: Server) -> None:
    for prompt in ({}, {"prompt": ""}):
        shared.submit(engine="fastwan", image_url="https://files.example/i.png", **prompt)
        assert shared.claim()["prompt"] == ""


def test_jobs_are_handed_out_in_the_order_of_their_arrival(shared: Server) -> None:
    submitted = [shared.submit() for _ in range(4)]
    assert [shared.claim(f"w{n}")["musetalk_job_id"] for n in range(4)] == submitted


def test_each_queue_hands_out_its_own_jobs(shared: Server) -> None:
    for_buffer, for_main = shared.submit(buffer=True), shared.submit()
    assert shared.claim()["musetalk_job_id"] == for_main
    assert shared.claim() is None
    claimed = shared.claim_buffer()
    assert claimed["musetalk_job_id"] == for_buffer
    assert claimed["buffer_job_id"] not in ("", for_buffer)


def test_a_heartbeat_is_answered_ok_with_and_without_additions(shared: Server) -> None:
    assert shared.beat("w7") == {"detail": "ok"}
    assert shared.beat("w7", gpus=[], version="1", paused=False, job_ids=[]) == {"detail": "ok"}
    for body in (BUFFER_BEAT, {**BUFFER_BEAT, "mode": "buffer", "job_ids": ["x"]}):
        assert answer(shared.post("/internal/buffer/workers/b7/heartbeat", body)) == {"detail": "ok"}


def test_the_last_heartbeat_of_each_worker_can_be_seen(shared: Server) -> None:
    shared.beat("w8", status="busy", uptime_sec=3)
    found = {worker["worker_id"]: worker for worker in shared.get("/workers")["workers"]}["w8"]
    assert found["online"] is True
    assert found["last_heartbeat"] == {**BEAT, "status": "busy", "uptime_sec": 3}


def test_a_job_runs_and_succeeds(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    assert answer(shared.report(job_id, progress=0.3)) == {"detail": "ok"}
    assert shared.state(job_id) == "running"
    assert answer(shared.succeed(job_id)) == {"detail": "ok"}
    job = shared.get(f"/jobs/{job_id}")
    assert (job["state"], job["progress"], job["output_url"]) == ("succeeded", 1.0, SUCCEEDED["output_url"])
    assert job["metrics"] == SUCCEEDED["metrics"]
    assert shared.history(job_id) == ["queued", "claimed", "running", "succeeded"]


def test_a_fastwan_job_reports_at_its_own_path_only(shared: Server) -> None:
    job_id = shared.submit(engine="fastwan", image_url="https://files.example/i.png", prompt="a walk")
    shared.claim()
    assert "fastwan" in answer(shared.report(job_id, path="jobs"), 404)["detail"]
    assert answer(shared.report(job_id, path="videogen/jobs")) == {"detail": "ok"}
    answer(shared.succeed(job_id, path="videogen/jobs"))
    assert shared.state(job_id) == "succeeded"


def test_a_job_may_end_without_a_running_report(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    answer(shared.fail(job_id, error="video: no face in it"))
    job = shared.get(f"/jobs/{job_id}")
    assert (job["state"], job["error"]) == ("failed", "video: no face in it")


def test_progress_never_goes_down(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    for value in (0.1, 0.6, 0.2):
        answer(shared.report(job_id, progress=value))
    assert shared.get(f"/jobs/{job_id}")["progress"] == 0.6
    answer(shared.fail(job_id))


def test_a_buffer_job_ends_by_its_status(shared: Server) -> None:
    shared.submit(buffer=True)
    job = shared.claim_buffer("b1")
    path = f"/internal/buffer/jobs/{job['buffer_job_id']}/status"
    answer(shared.report(job["musetalk_job_id"], "b1"))
    body = {"status": "succeeded", "error": None, "output_url": "https://store.example/x.mp4", "metrics": {"fps": 25}}
    assert answer(shared.post(path, body)) == {"detail": "ok"}
    answer(shared.succeed(job["musetalk_job_id"], "b1"))  # a worker says it in both places
    assert shared.state(job["musetalk_job_id"]) == "succeeded"
    assert shared.verdicts(job["musetalk_job_id"]) == ["accepted", "repeated"]


def test_a_buffer_job_may_fail_by_its_status(shared: Server) -> None:
    shared.submit(buffer=True)
    job = shared.claim_buffer()
    path = f"/internal/buffer/jobs/{job['buffer_job_id']}/status"
    answer(shared.post(path, {"status": "failed", "error": "no face", "output_url": None, "metrics": None}))
    assert shared.state(job["musetalk_job_id"]) == "failed"


def test_a_terminal_report_may_be_repeated_but_not_contradicted(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    answer(shared.succeed(job_id))
    answer(shared.succeed(job_id))
    answer(shared.fail(job_id), 409)
    assert shared.state(job_id) == "succeeded"
    assert shared.verdicts(job_id) == ["accepted", "repeated", "conflict"]


def test_a_late_running_report_changes_nothing(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    answer(shared.succeed(job_id))
    assert answer(shared.report(job_id)) == {"detail": "ok"}
    assert shared.state(job_id) == "succeeded"


@pytest.mark.parametrize("path", ["jobs/nix/progress", "videogen/jobs/nix/progress", "buffer/jobs/nix/status"])
def test_a_report_on_an_unknown_job_is_404(shared: Server, path: str) -> None:
    body = {**progress("w1"), **SUCCEEDED}
    assert "nix" in answer(shared.post(f"/internal/{path}", body), 404)["detail"]


def test_a_worker_that_does_not_have_the_job_is_refused(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim("w1")
    assert answer(shared.report(job_id, "other"))["cancel"] is True
    answer(shared.succeed(job_id, "other"), 409)
    assert shared.state(job_id) == "claimed"
    assert shared.verdicts(job_id) == ["superseded"]


def test_a_waiting_job_is_cancelled_at_once(shared: Server) -> None:
    job_id = shared.submit()
    assert answer(shared.post(f"/jobs/{job_id}/cancel"))["state"] == "cancelled"
    assert shared.claim() is None
    assert answer(shared.post(f"/jobs/{job_id}/cancel"))["state"] == "cancelled"


def test_a_running_job_is_cancelled_through_its_worker(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim("w5")
    answer(shared.report(job_id, "w5"))
    assert answer(shared.post(f"/jobs/{job_id}/cancel"), 202)["cancel_requested"] is True
    assert shared.beat("w5") == {"detail": "ok", "cancel_job_ids": [job_id]}
    assert shared.beat("w6") == {"detail": "ok"}
    assert answer(shared.report(job_id, "w5"))["cancel"] is True
    answer(shared.fail(job_id, "w5", error="cancelled"))
    assert shared.state(job_id) == "cancelled"
    assert shared.beat("w5") == {"detail": "ok"}


def test_a_buffer_worker_hears_of_a_cancel_too(shared: Server) -> None:
    job_id = shared.submit(buffer=True)
    shared.claim_buffer("b9")
    shared.post(f"/jobs/{job_id}/cancel")
    heard = answer(shared.post("/internal/buffer/workers/b9/heartbeat", BUFFER_BEAT))
    assert heard == {"detail": "ok", "cancel_job_ids": [job_id]}


def test_a_finished_job_cannot_be_cancelled(shared: Server) -> None:
    job_id = shared.submit()
    shared.claim()
    answer(shared.succeed(job_id))
    assert "succeeded" in answer(shared.post(f"/jobs/{job_id}/cancel"), 409)["detail"]
    answer(shared.post("/jobs/nix/cancel"), 404)


def test_jobs_are_listed_newest_first_by_state(shared: Server) -> None:
    ids = [shared.submit() for _ in range(3)]
    shared.claim()
    listed = shared.get("/jobs?state=queued&limit=5")["jobs"]
    assert [job["musetalk_job_id"] for job in listed] == [ids[2], ids[1]]
    assert len(shared.get("/jobs?limit=2")["jobs"]) == 2
    assert set(answer(shared.ask("GET", "/jobs?state=lost&limit=0"), 422)["fields"]) == {"state", "limit"}
    for _ in range(2):
        shared.claim()


def test_the_same_submission_is_added_once(shared: Server) -> None:
    body = {**TALKING_HEAD, "musetalk_job_id": "twice"}
    answer(shared.post("/jobs", body), 201)
    assert answer(shared.post("/jobs", body), 200)["musetalk_job_id"] == "twice"
    assert "twice" in answer(shared.post("/jobs", {**body, "resolution": "64x64"}), 409)["detail"]
    assert shared.claim()["musetalk_job_id"] == "twice"
    assert shared.claim() is None


def test_a_claim_with_the_same_key_gets_the_same_job(shared: Server) -> None:
    first, second = shared.submit(), shared.submit()
    for _ in range(3):
        assert shared.claim("w1", Idempotency_Key="a")["musetalk_job_id"] == first
    assert shared.claim("w2", Idempotency_Key="a")["musetalk_job_id"] == second
    assert shared.get(f"/jobs/{first}")["attempts"] == 1
    answer(shared.succeed(first))
    third = shared.submit()
    assert shared.claim("w1", Idempotency_Key="a")["musetalk_job_id"] == third


CLIP = {"engine": "fastwan", "image_url": "https://files.example/i.png"}
WRONG: list[tuple[str, Any, set[str]]] = [
    ("/jobs", {}, {"engine"}),
    ("/jobs", {"engine": ["musetalk"]}, {"engine"}),
    ("/jobs", {"engine": "musetalk"}, {"video_url", "audio_url"}),
    ("/jobs", {"engine": "fastwan"}, {"image_url"}),
    (
        "/jobs",
        {"engine": "fastwan", "image_url": "ftp://x/y", "prompt": 7, "num_frames": 0},
        {"image_url", "prompt", "num_frames"},
    ),
    ("/jobs", {**CLIP, "prompt": "x" * 10_001, "width": 31, "steps": True}, {"prompt", "width", "steps"}),
    ("/jobs", {**TALKING_HEAD, "audio_url": "file:///etc/passwd"}, {"audio_url"}),
    ("/jobs", {**TALKING_HEAD, "video_url": "http://[half"}, {"video_url"}),
    ("/jobs", {**TALKING_HEAD, "resolution": "big", "aspect_ratio": 1}, {"resolution", "aspect_ratio"}),
    ("/jobs", {**TALKING_HEAD, "musetalk_job_id": "../x"}, {"musetalk_job_id"}),
    ("/jobs", {**TALKING_HEAD, "musetalk_job_id": "x" * 10_000}, {"musetalk_job_id"}),
    ("/jobs", {**TALKING_HEAD, "prompt": "of another engine"}, {"prompt"}),
    ("/jobs", {**TALKING_HEAD, "buffer": "yes", "params": []}, {"buffer", "params"}),
    ("/internal/main/jobs/claim", {"worker_id": ""}, {"worker_id", "worker_type", "gpu_class"}),
    ("/internal/buffer/jobs/claim", {}, {"worker_id"}),
    ("/internal/main/workers/w1/heartbeat", {**BEAT, "status": "ok", "system_info": {}}, {"status", "system_info"}),
    ("/internal/buffer/workers/b1/heartbeat", {**BUFFER_BEAT, "capacity": 0}, {"capacity"}),
    ("/internal/jobs/j/progress", {**progress("w1"), "progress": 1.1}, {"progress"}),
    ("/internal/jobs/j/progress", {**progress("w1"), "progress": True, "phase": "x"}, {"progress", "phase"}),
    ("/internal/jobs/j/progress", {**progress("w1"), "status": "succeeded"}, {"output_url"}),
    ("/internal/jobs/j/progress", {**progress("w1"), "status": "failed"}, {"error"}),
    ("/internal/buffer/jobs/j/status", {"status": "running"}, {"status"}),
]


@pytest.mark.parametrize(("path", "body", "fields"), WRONG)
def test_a_wrong_body_is_refused_naming_each_field(shared: Server, path: str, body: Any, fields: set[str]) -> None:
    assert set(answer(shared.post(path, body), 422)["fields"]) == fields


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b'"\\ud800"', b"[" * 100_000])
def test_what_is_not_json_is_refused(shared: Server, body: bytes) -> None:
    headers = {"X-Internal-API-Key": KEY}
    for path in ("/jobs", "/internal/main/jobs/claim", "/internal/jobs/j/progress"):
        assert "JSON" in answer(requests.post(shared.url + path, body, headers=headers, timeout=20), 400)["detail"]


def test_every_error_is_json(shared: Server) -> None:
    answer(shared.ask("GET", "/nowhere"), 404)
    answer(shared.ask("DELETE", "/jobs"), 405)
    answer(shared.ask("GET", "/jobs/nix"), 404)
    answer(shared.post("/jobs", "x" * 2_000_000), 413)
    assert "object" in answer(shared.post("/jobs", []), 422)["detail"]
