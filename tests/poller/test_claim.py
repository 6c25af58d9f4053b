from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue.job import FETCH
from poller.claim import Claiming, Rhythm, arrived
from poller.identity import News
from poller.orchestrator import Orchestrator
from tests.fakes import orchestrator as behaviours
from tests.fakes.orchestrator import Behaviour, FakeOrchestrator
from tests.poller.house import LINKS, House, eventually, running

JOB = {"musetalk_job_id": "job-1", **LINKS, "aspect_ratio": "1:1", "resolution": "512x512"}
FASTWAN = {"musetalk_job_id": "job-1", "image_url": "https://files.example/i.png", "prompt": "a cat"}


def claiming(house: House, fake: FakeOrchestrator, poll_interval_s: float = 30.0, **identity: Any) -> Claiming:
    rhythm = Rhythm(poll_interval_s=poll_interval_s, prefetch_jobs=1, prefetch_lead_s=15.0)
    news = News(gpu_class="a card")
    house.model_is_loaded()
    orchestrator = Orchestrator(fake.url, None, timeout_s=2)
    return Claiming(house.queue, house.control, orchestrator, house.identity(**identity), rhythm, news)


def gives(*payloads: Any) -> Any:
    """A script that hands out one job after another, then none."""
    left = list(payloads)
    return lambda heard: behaviours.says({"job": left.pop(0) if left else None, "error": None})


def keys(fake: FakeOrchestrator) -> list[str]:
    return [heard.headers["Idempotency-Key"] for heard in fake.heard]


def test_a_claim_says_who_asks(house: House, fake: FakeOrchestrator) -> None:
    claiming(house, fake, worker_type="expensive").step()
    assert fake.heard[0].path == "/internal/main/jobs/claim"
    assert fake.heard[0].body == {"worker_id": "w-1", "worker_type": "expensive", "gpu_class": "a card"}


def test_a_buffer_claim_says_the_id_alone(house: House, fake: FakeOrchestrator) -> None:
    claiming(house, fake, mode="buffer").step()
    assert (fake.heard[0].path, fake.heard[0].body) == ("/internal/buffer/jobs/claim", {"worker_id": "w-1"})


def test_a_claimed_job_is_in_the_queue_with_what_it_needs(house: House, fake: FakeOrchestrator) -> None:
    fake.script = gives({**JOB, "buffer_job_id": "b-1", "params": {"x": 1}})
    claiming(house, fake, mode="buffer").step()
    job = house.queue.get("job-1")
    assert job is not None
    assert (job.state, job.source, job.buffer_job_id, job.params) == ("claimed", "buffer", "b-1", {"x": 1})
    assert job.inputs["video_url"] == LINKS["video_url"]


def test_a_claimed_fastwan_job_has_the_sizes_of_a_claim(house: House, fake: FakeOrchestrator) -> None:
    fake.script = gives(FASTWAN)
    claiming(house, fake, engine="fastwan", shape="fastwan").step()
    job = house.queue.get("job-1")
    assert job is not None
    assert {name: job.inputs[name] for name in ("width", "height", "num_frames", "steps")} == {
        "width": 720,
        "height": 1280,
        "num_frames": 121,
        "steps": 4,
    }


@pytest.mark.parametrize("prompt", [{}, {"prompt": ""}, {"prompt": None}])
def test_a_claimed_job_may_have_no_prompt(house: House, fake: FakeOrchestrator, prompt: dict[str, Any]) -> None:
    fake.script = gives({name: value for name, value in FASTWAN.items() if name != "prompt"} | prompt)
    claiming(house, fake, engine="fastwan", shape="fastwan").step()
    job = house.queue.get("job-1")
    assert job is not None
    assert (job.state, job.inputs["prompt"]) == ("claimed", "")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("prompt", "x" * 100_000, "prompt: is 100000 characters long; at most 10000"),
        ("prompt", 7, "prompt: is 7; must be a text of at most 10000 characters"),
        ("num_frames", 0, "num_frames: is 0; must be a whole number from 1 to 241"),
        ("num_frames", 10_000, "num_frames: is 10000; must be a whole number from 1 to 241"),
        ("guidance_scale", math.nan, "guidance_scale: is NaN; must be a number from 0 to 100"),
        ("params", {"x": math.nan}, "params: contains NaN or Infinity"),
        ("params", {"x": [math.inf]}, "params: contains NaN or Infinity"),
    ],
)
def test_a_claimed_fastwan_job_that_cannot_be_made_is_failed_with_its_field(
    house: House, fake: FakeOrchestrator, field: str, value: Any, says: str
) -> None:
    fake.script = gives({**FASTWAN, field: value})
    claiming(house, fake, engine="fastwan", shape="fastwan").step()
    ((_, job),) = house.outbox.due()
    assert job.error is not None
    assert (job.error["error_type"], job.error["retryable"]) == ("media_error", False)
    assert job.error["message"].startswith(says)


@pytest.mark.parametrize(
    "behaviour",
    [
        behaviours.error_page(500),
        behaviours.error_page(404),
        behaviours.error_page(200),
        behaviours.drops(),
        behaviours.says({"job": None, "error": "database_unavailable"}),
        behaviours.says({"detail": "what?"}),
    ],
)
def test_a_claim_without_a_real_answer_is_asked_again_with_its_key(
    house: House, fake: FakeOrchestrator, behaviour: Behaviour
) -> None:
    loop = claiming(house, fake)
    fake.script = lambda heard: behaviour
    waits = [loop.step()]
    loop._next = 0.0
    waits.append(loop.step())
    assert len(fake.heard) == 2
    assert len(set(keys(fake))) == 1
    assert all(wait_s >= 1 for wait_s in waits)
    assert house.queue.unfinished() == []


def test_a_real_answer_ends_the_key(house: House, fake: FakeOrchestrator) -> None:
    loop = claiming(house, fake)
    loop.step()
    loop._next = 0.0
    loop.step()
    assert len(set(keys(fake))) == 2


def test_a_key_outlives_its_process(house: House, fake: FakeOrchestrator) -> None:
    key = house.control.begin_claim()
    claiming(house, fake).step()
    assert keys(fake) == [key]


def test_failures_are_paused_after_longer_and_longer_up_to_a_minute(house: House, fake: FakeOrchestrator) -> None:
    fake.script = lambda heard: behaviours.error_page(502)
    loop = claiming(house, fake, poll_interval_s=0.5)
    waits = []
    for _ in range(9):
        loop._next = 0.0
        waits.append(loop.step())
    assert all(2 ** (n - 1) <= wait_s <= 2**n for n, wait_s in enumerate(waits[:6]))
    assert all(30 <= wait_s <= 60 for wait_s in waits[6:])


def test_a_failing_claim_is_logged_once_a_change(
    house: House, fake: FakeOrchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    loop = claiming(house, fake)
    for status in (502, 502, 503):
        page = behaviours.error_page(status)
        fake.script = lambda heard, page=page: page  # type: ignore[misc]
        loop._next = 0.0
        loop.step()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2


def test_the_next_job_is_claimed_at_once_when_the_gpu_is_free(house: House, fake: FakeOrchestrator) -> None:
    fake.script = gives(JOB)
    loop = claiming(house, fake, poll_interval_s=3600)
    with running(loop.loop):
        eventually(lambda: house.queue.get("job-1"))
        fake.script = gives({**JOB, "musetalk_job_id": "job-2"})
        assert house.queue.cancel("job-1", "to free the GPU")
        house.queue.bell.ring()
        eventually(lambda: house.queue.get("job-2"))


@pytest.mark.parametrize("flag", ["paused", "draining", "unfit"])
def test_nothing_is_claimed_while_a_flag_is_up(house: House, fake: FakeOrchestrator, flag: Any) -> None:
    house.control.put_up(flag, "a reason", "a test")
    claiming(house, fake).step()
    assert fake.heard == []


def test_an_unfinished_job_that_is_claimed_again_goes_on(house: House, fake: FakeOrchestrator) -> None:
    before = house.job("generated")
    fake.script = gives(JOB)
    claiming(house, fake).step()
    after = house.queue.get("job-1")
    assert after is not None
    assert (after.state, after.round, after.result) == ("generated", 1, before.result)


def test_a_job_that_succeeded_and_is_claimed_again_is_reported_again(house: House, fake: FakeOrchestrator) -> None:
    house.job("succeeded")
    house.outbox.sent(house.outbox.due()[0][0], "200")
    fake.script = gives(JOB)
    claiming(house, fake).step()
    assert [(event.state, job.state) for event, job in house.outbox.due()] == [("succeeded", "succeeded")]


def test_a_failed_job_that_is_claimed_again_begins_a_new_round(house: House, fake: FakeOrchestrator) -> None:
    house.job("failed")
    fake.script = gives(JOB)
    claiming(house, fake).step()
    job = house.queue.get("job-1")
    assert job is not None
    assert (job.state, job.round, job.error) == ("claimed", 2, None)
    assert house.outbox.due() == []  # the old end is void


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (FASTWAN, "this worker serves musetalk jobs"),
        ({"musetalk_job_id": "job-1"}, "video_url: is missing"),
        ({**JOB, "video_url": "ftp://files.example/x"}, "video_url: must be an http:// or https:// link"),
        ({**JOB, "params": "x"}, "params: must be an object"),
        ({**JOB, "musetalk_job_id": "a/../b"}, "musetalk_job_id: must be 1 to 200"),
        ({**JOB, "musetalk_job_id": "x" * 10_000}, "musetalk_job_id: must be 1 to 200"),
        ({**JOB, "musetalk_job_id": 7}, "musetalk_job_id: must be 1 to 200"),
    ],
)
def test_a_job_that_cannot_be_run_is_failed_and_says_why(
    house: House, fake: FakeOrchestrator, payload: dict[str, Any], says: str
) -> None:
    fake.script = gives(payload)
    claiming(house, fake).step()
    ((_, job),) = house.outbox.due()
    assert job.id == str(payload["musetalk_job_id"])
    assert job.error is not None
    assert job.error["error_type"] == "media_error"
    assert says in job.error["message"]
    assert house.queue.take(FETCH, "poller/test") is None


@pytest.mark.parametrize(
    "payload", [{}, LINKS, {**JOB, "musetalk_job_id": ""}, [JOB], "job-1", 7, {**JOB, "musetalk_job_id": None}]
)
def test_a_job_without_an_id_ends_the_claim(house: House, fake: FakeOrchestrator, payload: Any) -> None:
    loop = claiming(house, fake)
    fake.script = gives(payload)
    loop.step()
    loop._next = 0.0
    loop.step()
    assert len(set(keys(fake))) == 2
    assert house.queue.counts() == {}


def test_a_buffer_job_without_an_id_of_its_own_is_failed_by_its_buffer_id(house: House) -> None:
    new = arrived({"buffer_job_id": "b-9", **LINKS}, house.identity(mode="buffer"))
    assert new is not None
    assert (new.id, new.buffer_job_id) == ("buffer:b-9", "b-9")
    assert new.error is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([*JOB, *FASTWAN, "buffer_job_id", "params", "seed", "width", "negative_prompt"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=json_values | st.dictionaries(names, json_values | st.just("job-x") | st.just("\ud800"), max_size=8))
def test_whatever_an_orchestrator_sends_as_a_job_the_claim_goes_on(house: House, payload: Any) -> None:
    for shape in ("musetalk", "fastwan"):
        new = arrived(payload, dataclasses.replace(house.identity(mode="buffer"), shape=shape, engine=shape))
        if new is not None:
            house.queue.add(new)
