from __future__ import annotations

import functools
import json
import math
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.generate import MAX_WAITERS
from api.health import MAX_QUEUED
from jobqueue.control import Flag
from jobqueue.job import FETCH, GENERATE
from tests.api.program import CLIP, JOB, Api, running, taken, work_through
from tests.patience import PATIENCE_S, until


def test_the_answer_comes_when_the_job_is_stored(api: Api) -> None:
    results: dict[str, dict[str, Any]] = {
        "fetch": {"stage_times": {"download": 1.5, "validation": 0.25}},
        "generate": {"stage_times": {"inference": 2.0}, "metrics": {"frames": 75, "fps": 25.0, "engine": "preview"}},
        "upload": {
            "stage_times": {"upload": 0.5},
            "output_url": "https://s.example/j1.mp4",
            "b2_bucket": "b",
            "b2_file_name": "f",
        },
    }
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB, headers={"Salad-Job-Id": "salad-7"})
        job = work_through(api.queue, results)
    body = answer.result().json()
    assert answer.result().status_code == 200
    assert body["status"] == "success"
    assert body["output_url"] == "https://s.example/j1.mp4"
    assert body["musetalk_job_id"] == "j1"
    assert body["metrics"]["frames"] == 75
    assert body["metrics"]["total_time"] == 4.25
    assert body["metrics"]["b2_bucket"] == "b"
    assert (job.source, job.queue_job_id) == ("queue", "salad-7")


def test_the_same_id_joins_its_job_and_later_gets_its_result(api: Api) -> None:
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(api.post, JOB) for _ in range(3)]
        until(lambda: api.queue.unfinished())
        work_through(api.queue)
    assert [answer.result().status_code for answer in answers] == [200, 200, 200]
    assert api.post(JOB).json() == answers[0].result().json()
    job = api.queue.get("j1")
    assert job is not None
    assert job.round == 1


def test_after_a_failure_the_same_id_is_a_new_attempt(api: Api) -> None:
    error = {
        "message": "no face",
        "error_type": "media_error",
        "retryable": False,
        "stage": "preprocessing",
        "details": {"at_s": 1},
    }
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB)
        api.queue.fail(taken(api.queue, FETCH), error)
        assert answer.result().status_code == 422
        again = pool.submit(api.post, JOB)
        work_through(api.queue)
    body: dict[str, Any] = {
        "status": "failed",
        "error_type": "media_error",
        "error_message": "no face",
        "stage": "preprocessing",
    }
    body |= {"details": {"at_s": 1}, "retryable": False, "stage_times": {}}
    assert answer.result().json() == body
    assert again.result().status_code == 200


@pytest.mark.parametrize("kind", ["processing_error", "unknown_error"])
def test_a_failure_of_the_worker_is_a_500_with_its_trace(api: Api, kind: str) -> None:
    error = {
        "message": "boom",
        "error_type": kind,
        "retryable": True,
        "stage": "inference",
        "details": {},
        "stack_trace": "line 1",
    }
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB)
        fetched = api.queue.done(FETCH, taken(api.queue, FETCH), {"stage_times": {"download": 1.0}})
        assert fetched.state == "ready"
        api.queue.fail(taken(api.queue, GENERATE), error)
    body: dict[str, Any] = {
        "status": "failed",
        "error_type": kind,
        "error_message": "boom",
        "stage": "inference",
        "details": {},
    }
    body |= {"retryable": True, "stack_trace": "line 1", "stage_times": {"download": 1.0}}
    assert answer.result().status_code == 500
    assert answer.result().json() == body


def test_a_cancelled_job_says_so_and_is_not_retryable(api: Api) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB)
        until(lambda: api.queue.get("j1"))
        api.queue.cancel("j1", "not needed")
    body = answer.result().json()
    assert answer.result().status_code == 500
    assert (body["error_type"], body["error_message"], body["retryable"]) == ("processing_error", "cancelled", False)


def test_a_job_whose_row_was_removed_is_a_500(api: Api) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB)
        until(lambda: api.queue.get("j1"))
        api.queue.database.write(lambda connection: connection.execute("delete from job").fetchall())
    assert answer.result().status_code == 500
    assert "deleted" in answer.result().json()["error_message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"musetalk_job_id", "video_url", "audio_url"}),
        ({**JOB, "video_url": "ftp://a.example/v"}, {"video_url"}),
        ({**JOB, "resolution": "big", "aspect_ratio": 3, "params": []}, {"resolution", "aspect_ratio", "params"}),
        ({**JOB, "musetalk_job_id": "a/../b"}, {"musetalk_job_id"}),
        ({**JOB, "musetalk_job_id": "x" * 10_000}, {"musetalk_job_id"}),
        ({**JOB, "musetalk_job_id": 7}, {"musetalk_job_id"}),
        ([JOB], {"body"}),
    ],
)
def test_a_body_that_is_not_the_schema_is_refused_naming_each_field(api: Api, body: object, fields: set[str]) -> None:
    answer = api.post(body)
    found = answer.json()
    assert answer.status_code == 422
    assert set(found["details"]["fields"]) == fields
    assert (found["error_type"], found["stage"], found["retryable"]) == ("media_error", "validation", False)
    assert all(name in found["error_message"] for name in fields)
    assert api.queue.unfinished() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "<html>", '{"a": NaN}', "[" * 100_000, '{"params": ' + '{"a":' * 900 + "1" + "}" * 901, " " * 1_100_000, "\xff"],
)
def test_a_body_that_is_not_json_or_too_large_or_too_deep_is_refused(api: Api, text: str) -> None:
    answer = api.post(None, data=text.encode("latin-1"))
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "media_error"


def test_a_job_of_the_other_engine_is_refused_and_says_so(api: Api) -> None:
    answer = api.post(CLIP)
    assert answer.status_code == 422
    assert "this worker serves musetalk jobs" in answer.json()["error_message"]


@pytest.mark.parametrize("flag", ["paused", "draining", "unfit"])
def test_a_worker_that_takes_nothing_new_says_when_to_come_back_but_known_jobs_join(api: Api, flag: Flag) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(api.post, JOB)
        until(lambda: api.queue.get("j1"))
        api.control.put_up(flag, "a reason", "test")
        refused = api.post({**JOB, "musetalk_job_id": "j2"})
        second = pool.submit(api.post, JOB, headers={"Salad-Job-Id": "second"})
        until(lambda: _has_salad_id(api, "j1", "second"))
        api.queue.cancel("j1", "enough")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert f"{flag}: a reason" in refused.json()["error_message"]
    assert api.queue.get("j2") is None
    assert [first.result().status_code, second.result().status_code] == [500, 500]


def test_a_full_queue_refuses_new_jobs_and_the_probes_are_answered_while_all_wait(api: Api) -> None:
    ids = [f"j{number}" for number in range(MAX_QUEUED)]
    with ThreadPoolExecutor(MAX_WAITERS) as pool:
        waiting = [pool.submit(api.post, {**JOB, "musetalk_job_id": name}) for name in ids]
        until(lambda: len(api.queue.unfinished()) == MAX_QUEUED)
        full = api.post({**JOB, "musetalk_job_id": "one-more"})
        for name in ids[: MAX_WAITERS - MAX_QUEUED]:
            waiting.append(pool.submit(api.post, {**JOB, "musetalk_job_id": name}, headers={"Salad-Job-Id": name}))
            until(functools.partial(_has_salad_id, api, name, name))
        crowded = api.post({**JOB, "musetalk_job_id": ids[0]})
        probes = [api.get(path).status_code for path in ("/hc", "/health", "/metrics", "/ready", "/health")]
        for name in ids:
            api.queue.cancel(name, "enough")
    assert (full.status_code, crowded.status_code) == (503, 503)
    assert "full" in full.json()["error_message"]
    assert "waiting already" in crowded.json()["error_message"]
    assert "Retry-After" in crowded.headers
    assert probes == [200, 200, 200, 503, 200]
    assert {answer.result().status_code for answer in waiting} == {500}


def test_those_who_wait_and_hang_up_make_room_for_others(api: Api) -> None:
    clients = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(MAX_WAITERS)]
    for client in clients:
        client.sendall(_request(JOB))
    until(lambda: "waiting already" in api.post({}).text)
    for client in clients:
        client.close()
    until(lambda: api.post({}).status_code == 422)
    assert [job.id for job in api.queue.unfinished()] == ["j1"]


def test_a_client_that_hangs_up_does_not_stop_its_job(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(_request(JOB))
        until(lambda: api.queue.get("j1"))
    assert work_through(api.queue).state == "succeeded"
    assert api.post(JOB).status_code == 200


def test_the_answer_goes_out_in_one_write_and_the_connection_can_be_used_again(api: Api) -> None:
    with ThreadPoolExecutor() as pool:
        pool.submit(api.post, JOB)
        work_through(api.queue)
    with socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S) as client:
        for sent in (1, 2, 3):
            client.sendall(_request(JOB))
            head, _, body = client.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"Content-Length: %d" % len(body) in head
            assert _segments_received(client) == sent


def test_fastwan_says_succeeded_and_fills_in_its_defaults(data_dir: Path) -> None:
    with running(data_dir, ENGINE="fastwan") as api, ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, CLIP)
        job = work_through(api.queue)
        other = api.post(JOB)
    assert answer.result().json()["status"] == "succeeded"
    assert (job.inputs["width"], job.inputs["height"], job.inputs["num_frames"]) == (480, 832, 121)
    assert other.status_code == 422


def test_an_empty_prompt_is_a_prompt(data_dir: Path) -> None:
    with running(data_dir, ENGINE="fastwan") as api, ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, {**CLIP, "prompt": ""})
        job = work_through(api.queue)
    assert (answer.result().status_code, job.inputs["prompt"]) == (200, "")


#: A body of bytes that requests' own JSON writer refuses to write.
NOT_A_NUMBER = json.dumps({**CLIP, "guidance_scale": math.nan, "params": {"strength": math.inf}})


def test_what_a_fastwan_job_may_not_be_is_said_field_by_field(data_dir: Path) -> None:
    without = {name: value for name, value in CLIP.items() if name != "prompt"}
    with running(data_dir, ENGINE="fastwan") as api:
        wrong = [api.post(body) for body in (without, {**CLIP, "prompt": "x" * 100_000, "num_frames": 10_000, "steps": "4"})]
        wrong.append(api.post(None, data=NOT_A_NUMBER))
        assert api.queue.unfinished() == []
    assert [answer.status_code for answer in wrong] == [422, 422, 422]
    assert [answer.json()["details"]["fields"] for answer in wrong] == [
        {"prompt": "is missing; must be a text, which may be empty"},
        {
            "prompt": "is 100000 characters long; at most 10000",
            "num_frames": "is 10000; must be a whole number from 1 to 241",
            "steps": 'is "4"; must be a whole number from 1 to 100',
        },
        {
            "guidance_scale": "is NaN; must be a number from 0 to 100",
            "params": "contains NaN or Infinity, which are not JSON; must be an object, like {}",
        },
    ]


def test_a_token_is_asked_for_by_generate_and_metrics_alone(data_dir: Path) -> None:
    with running(data_dir, API_TOKEN="a-long-token") as api:
        right = {"Authorization": "Bearer a-long-token"}
        wrong = {"Authorization": "Bearer a-long-tokem"}
        assert [api.post({}).status_code, api.post({}, headers=wrong).status_code] == [401, 401]
        assert "error" in api.post({}).json()
        assert api.post({}, headers=right).status_code == 422
        assert [api.get("/metrics").status_code, api.get("/metrics", headers=right).status_code] == [401, 200]
        assert [api.get(path).status_code for path in ("/hc", "/health")] == [200, 200]


def test_while_the_queue_cannot_be_used_nothing_is_taken_and_those_who_wait_wait_on(data_dir: Path) -> None:
    with running(data_dir) as api, ThreadPoolExecutor() as pool:
        first = pool.submit(api.post, JOB)
        until(lambda: api.queue.get("j1"))
        _rename(api, "job", "gone")
        refused = api.post({**JOB, "musetalk_job_id": "j2"})
        until(lambda: "while waiting for j1" in (data_dir / "logs/api.log").read_text())
        _rename(api, "gone", "job")
        work_through(api.queue)
    assert (refused.status_code, refused.json()["error_type"], refused.json()["retryable"]) == (503, "processing_error", True)
    assert "the queue is unavailable: " in refused.json()["error_message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert first.result().status_code == 200


def test_a_worker_that_stops_tells_those_who_wait_and_keeps_the_job(data_dir: Path) -> None:
    with running(data_dir) as api, ThreadPoolExecutor() as pool:
        answer = pool.submit(api.post, JOB)
        until(lambda: api.queue.get("j1"))
        api.process.terminate()
        assert api.process.wait(20) == 0
        assert [job.id for job in api.queue.unfinished()] == ["j1"]
    assert answer.result().status_code == 503
    assert "Retry-After" in answer.result().headers


def _rename(api: Api, table: str, to: str) -> None:
    """Without its table of jobs the queue can be neither read nor written."""
    api.queue.database.write(lambda connection: connection.execute(f"alter table {table} rename to {to}").fetchall())


def _segments_received(client: socket.socket) -> int:
    """How many segments with data in them have come, by Linux's `tcpi_data_segs_in`."""
    information = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int(struct.unpack_from("I", information, 152)[0])


def _has_salad_id(api: Api, job_id: str, queue_job_id: str) -> bool:
    """Whether a request with that header has joined the job."""
    job = api.queue.get(job_id)
    return job is not None and job.queue_job_id == queue_job_id


def _request(body: dict[str, str]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: worker\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data
