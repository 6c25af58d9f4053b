"""The figures of `worker bench`: arithmetic on jobs whose times are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cli import figures
from jobqueue.job import Job

METRICS = {"frames": 100, "GENERATION_TIME_SEC": 9.0, "PEAK_VRAM_MIB": 8000.0, "PEAK_RAM_KB": 2048000, "batch_size": 8}


#: What no figure depends on.
ANY: dict[str, Any] = {
    **dict.fromkeys(("buffer_job_id", "queue_job_id", "owner", "phase", "cancel_reason", "frames_done", "frames_total")),
    **dict.fromkeys(("number", "round", "attempt", "crashes", "not_before", "stage_since", "progress"), 0),
    **{"source": "local", "engine": "musetalk", "state": "succeeded", "inputs": {}, "params": {}, "updated_at": ""},
}


def job(number: int, begin: int, end: int, **metrics: Any) -> Job:
    """One that came at 12:00:00, was on the GPU from `begin` to `end`, in seconds after that, and was uploaded in a second."""
    return Job(
        **ANY,
        id=f"job-{number}",
        created_at="2026-01-02T12:00:00.000Z",
        started_at=f"2026-01-02T12:00:{begin:02}.000Z",
        finished_at=f"2026-01-02T12:00:{end + 1:02}.000Z",
        result={"stage_times": {"download": 0.5, "inference": 9.0}, "metrics": METRICS | metrics},
    )


def spent(begin: int, end: int) -> dict[str, float]:
    waited, took = begin - 2.0, float(end - begin)
    return {"claimed": 1.0, "fetching": 1.0, "ready": waited, "generating": took, "uploading": 1.0, "all": waited + took + 3}


def run(*ends: int, **metrics: Any) -> figures.Run:
    """Jobs that were on the GPU one after another from the second second on."""
    spans = list(zip((2, *ends), ends, strict=False))
    jobs = [job(number, *span, **metrics) for number, span in enumerate(spans)]
    times = {one.id: spent(*span) for one, span in zip(jobs, spans, strict=True)}
    return figures.Run(engine="musetalk", device="cuda:0", gpu="a card", jobs=jobs, spent=times)


def test_the_first_job_is_kept_apart_and_jobs_per_hour_are_of_all() -> None:
    found = figures.of(run(22, 32, 42, 52), 0.95)
    assert (found["jobs"], found["seconds"], found["jobs_per_hour"], found["seconds_per_job"]) == (4, 53.0, 271.7, 13.25)
    assert (found["first_s"]["generate"], found["later_s"]["generate"]) == (20.0, 10.0)
    assert (found["frames_per_second"], found["rendering"], found["gpu_load"]) == (10.0, 0.9, 0.95)
    assert found["first_s"] == {"wait": 1.0, "fetch": 1.0, "generate": 20.0, "inference": 9.0, "upload": 1.0, "all": 23.0}


def test_a_single_job_is_the_first_and_there_are_no_later_ones() -> None:
    found = figures.of(run(12), None)
    assert (found["later_s"], found["rendering"], found["frames_per_second"]) == (None, 0.9, 10.0)
    assert "median" not in figures.table(found)
    assert figures.table(found).startswith("musetalk on cuda:0 (a card), batches of 8: 1 job in 13.0 s\n")


def test_the_engines_own_times_are_shown_below_those_of_its_stage() -> None:
    found = figures.of(run(22, 32, first_frame_s=1.5, busy_s={"networks": 6.0}), None)
    assert (found["later_s"]["first_frame"], found["later_s"]["networks"]) == (1.5, 6.0)
    lines = [line.split() for line in figures.table(found).splitlines()]
    assert lines.index(["networks", "6.00", "6.00"]) > lines.index(["generate", "20.00", "10.00"])


def test_what_a_job_costs_is_shown_if_the_price_is_known() -> None:
    found = figures.of(replace(run(22, 32), price_per_hour=0.8), None)
    assert found["cost_per_job"] == 0.003667
    assert ", 0.0037 $ per job\n" in figures.table(found)


def test_memory_is_in_gigabytes_and_absent_if_unknown() -> None:
    assert "at most 8.4 GB of GPU memory, 2.1 GB of RAM\n" in figures.table(figures.of(run(22, 32), None))
    assert "at most 2.1 GB of RAM\n" in figures.table(figures.of(run(22, 32, PEAK_VRAM_MIB=None), None))


def test_a_cached_avatar_is_told() -> None:
    seen = run(22, 32, avatar_cache="hit")
    assert "the cached avatar that was there before" in figures.table(figures.of(seen, None))
    jobs = [job(0, 2, 22, avatar_cache="miss"), seen.jobs[1]]
    assert "the cached avatar that the first job made" in figures.table(figures.of(replace(seen, jobs=jobs), None))


@pytest.mark.parametrize(("store", "words"), [("local", "inputs and outputs stay on this"), ("b2", "the inputs are on this")])
def test_what_never_crossed_the_network_is_told(store: str, words: str) -> None:
    assert f"{words} machine: the network's time" in figures.table(figures.of(replace(run(22, 32), store=store), None))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "the GPU is the limit"),
        ({"engine": "preview"}, "the preview engine says nothing about the speed of a model"),
        ({"device": "cpu"}, "musetalk ran on the CPU; find out why with worker doctor"),
        ({"other_jobs": 3}, "measure again while no other job runs"),
        ({"later_s": None}, "a single job shows no overlap"),
        ({"later_s": {"fetch": 1.0, "generate": 9.0, "upload": 12.0}}, "each job waits for the upload: a faster network helps"),
        ({"rendering": 0.5}, "the GPU renders nothing 50% of the time"),
        ({"gpu_load": 0.4}, "the GPU waits for the CPU while frames are made"),
    ],
)
def test_what_limits_the_machine_is_named(changes: dict[str, Any], line: str) -> None:
    (advice,) = figures.advice(figures.of(run(22, 32, 42), 0.95) | changes)
    assert advice.startswith(line)
