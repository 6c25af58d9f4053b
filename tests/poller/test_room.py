from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue.job import Job
from poller.room import MAX_AHEAD, no_room, remaining_s
from tests.poller.house import House

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LOADED = {"model_loaded": True, "age_s": 1.0}
#: Nothing waits for the store, the disk has room.
EMPTY = {"waiting_for_store": 0, "disk_bytes": (10**12, 10**12), "max_ahead": MAX_AHEAD}


def jobs(house: House, *wanted: str | tuple[int, int, int]) -> list[Job]:
    """Jobs by state; (seconds since its start, frames done, frames in all) is one on the GPU."""
    some = house.job("claimed")
    found = []
    for state in wanted:
        if isinstance(state, str):
            found.append(dataclasses.replace(some, state=state))
            continue
        started = (NOW - timedelta(seconds=state[0])).isoformat().replace("+00:00", "Z")
        running = {"state": "generating", "started_at": started, "frames_done": state[1], "frames_total": state[2]}
        found.append(dataclasses.replace(some, **running))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("unfinished", "changes", "reason"),
    [
        ((), {}, None),
        ((), {"flags": {"paused": {}}}, "paused"),
        ((), {"flags": {"draining": {}}}, "draining"),
        ((), {"flags": {"unfit": {}}}, "unfit"),
        ((), {"inference": None}, "inference is not running"),
        ((), {"inference": {"model_loaded": True, "age_s": 31.0}}, "inference is not running"),
        ((), {"inference": {"model_loaded": False, "age_s": 1.0}}, "the model is loading"),
        ((), {"waiting_for_store": 16}, "16 finished videos are waiting to be uploaded"),
        ((), {"disk_bytes": (10**12, 900_000_000)}, "the disk has only 900 MB free"),
        ((), {"disk_bytes": (60_000_000, 2_000_000)}, "the disk has only 2 MB free"),
        ((), {"disk_bytes": (60_000_000, 5_000_000)}, None),
        (("generated",), {}, None),
        (("uploading", "generated"), {}, None),
        (("claimed",), {}, "enough jobs are queued"),
        (("fetching",), {}, "enough jobs are queued"),
        (("ready",), {}, "enough jobs are queued"),
        (("generating",), {}, "the running job is not about to finish"),
        (((90, 90, 100),), {}, None),  # 10 s to go
        (((90, 50, 100),), {}, "the running job is not about to finish"),  # 90 s to go
        (((90, 0, 100),), {}, "the running job is not about to finish"),  # nothing is known yet
        (((90, 100, 100),), {}, None),
        (((90, 90, 100), "ready"), {}, "enough jobs are queued"),
        (((90, 90, 100), "ready"), {"prefetch_jobs": 2}, None),
        (((90, 90, 100),), {"prefetch_jobs": 0}, "a job is running"),
        (((90, 90, 100),), {"prefetch_lead_s": 5.0}, "the running job is not about to finish"),
        (("generating",), {"capacity": 2}, None),
        (("generating", "ready"), {"capacity": 2}, "enough jobs are queued"),
        (("ready", "claimed", "fetching"), {"capacity": 4}, None),
    ],
)
def test_a_job_is_claimed_just_in_time(
    house: House, unfinished: tuple[Any, ...], changes: dict[str, Any], reason: str | None
) -> None:
    rule = {
        "flags": {},
        "usual": {},
        "inference": LOADED,
        "capacity": 1,
        "prefetch_jobs": 1,
        "prefetch_lead_s": 15.0,
        "now": NOW,
        **EMPTY,
    }
    assert no_room(**{**rule, "unfinished": jobs(house, *unfinished), **changes}) == reason


#: Jobs take 2 s of GPU, and 2.5 s until their inputs are here.
SHORT = {"claimed": 0.1, "fetching": 2.4, "ready": 0.5, "generating": 2.0, "generated": 0.0, "uploading": 1.0, "all": 6.0}


@pytest.mark.parametrize(
    ("unfinished", "changes", "reason"),
    [
        (((1, 5, 10),), {}, None),  # the GPU is free in 1 s
        (((0.5, 0, 0),), {}, None),  # in 1.5 s, as far as is known
        (((1, 5, 10), "ready"), {}, None),  # in 3 s; one more is here in 2.5 s if all goes well
        (((1, 5, 10), "ready", "fetching"), {}, None),
        (((1, 5, 10), "ready", "ready", "ready", "fetching"), {}, "enough jobs are queued"),  # in 9 s
        (((9, 5, 10), "ready"), {}, "enough jobs are queued"),  # the running one is no short one
        (((9, 0, 0), "ready"), {}, "enough jobs are queued"),  # nor this one, and nobody knows how long it takes
        (((1, 5, 10), "ready"), {"usual": {**SHORT, "fetching": 0.4}}, "enough jobs are queued"),  # one is here soon enough
        (((1, 5, 10), "ready"), {"usual": {**SHORT, "generating": 60.0}}, "enough jobs are queued"),
        (((1, 5, 10), "ready"), {"prefetch_jobs": 0}, "enough jobs are queued"),
        (((1, 5, 10), "ready"), {"prefetch_lead_s": 2.0}, "the running job is not about to finish"),
        (("fetching",), {}, None),  # the GPU idles
        (((1, 5, 10), "ready"), {"max_ahead": 1}, "enough jobs are queued"),
        (((1, 5, 10), *["ready"] * 8), {"usual": {**SHORT, "generating": 0.01}}, "enough jobs are queued"),
    ],
)
def test_more_are_claimed_where_jobs_are_short_and_the_link_is_slow(
    house: House, unfinished: tuple[Any, ...], changes: dict[str, Any], reason: str | None
) -> None:
    rule = {"flags": {}, "usual": SHORT, "inference": LOADED, "capacity": 1, "prefetch_jobs": 1, "prefetch_lead_s": 15.0}
    assert no_room(**{**rule, **EMPTY, "now": NOW, "unfinished": jobs(house, *unfinished), **changes}) == reason


def test_the_end_is_expected_from_progress_when_frames_are_not_counted(house: House) -> None:
    (job,) = jobs(house, (40, 0, 0))
    assert remaining_s(dataclasses.replace(job, frames_total=None, progress=0.5), NOW) == pytest.approx(40)
    assert remaining_s(dataclasses.replace(job, started_at=None), NOW) is None
