"""The figures of `worker bench`, made from its finished jobs, and their table. Arithmetic and words; it asks nobody.

The names in the figures are API: they are added to, never changed.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobqueue.job import WAITING, Job

#: The parts of a job's time in the order of the table; the engine's own times belong to `generate`.
PARTS = ("wait", "fetch", "generate", "upload", "all")
WORDS = {"wait": "wait in line", "all": "in all"}
#: Below this share of the time, rendering or load, the GPU idles: something else is to be changed first.
BUSY = 0.8
MIB_PER_GB = 1e9 / 2**20


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was seen.

    jobs        succeeded, in the order in which they were rendered
    spent       seconds by job and state
    other_jobs  how many of others were on the GPU meanwhile
    store       where the videos went: local, or a bucket
    note        why this engine or device is used instead of the configured one
    """

    engine: str
    device: str
    jobs: list[Job]
    spent: dict[str, dict[str, float]]
    other_jobs: int = 0
    price_per_hour: float | None = None
    gpu: str | None = None
    store: str | None = None
    note: str | None = None


def span(run: Run) -> tuple[float, float]:
    """When the GPU began with the jobs whose speed counts, and when it ended, in wall seconds."""
    ends = [_rendered_at(job, run.spent[job.id]) for job in run.jobs]
    return (min(ends) if run.jobs[1:] else _wall(run.jobs[0].started_at)), max(ends)


def of(run: Run, gpu_load: float | None) -> dict[str, Any]:
    """The figures. gpu_load: how busy the driver found the GPU during `span(run)`, 0 to 1; None if nobody measured."""
    later = run.jobs[1:] or run.jobs  # the first one finds the caches empty and nothing prepared
    begin_s, end_s = span(run)
    times = {job.id: _times(job, run.spent[job.id]) for job in run.jobs}
    seconds = max(_wall(job.finished_at) for job in run.jobs) - min(_wall(job.created_at) for job in run.jobs)
    metrics = [_metrics(job) for job in run.jobs]
    rendering_s = sum(_metrics(job)["GENERATION_TIME_SEC"] for job in later)
    generate_s = sum(times[job.id]["generate"] for job in later)
    figures = {
        "engine": run.engine,
        "device": run.device,
        "gpu": run.gpu,
        "store": run.store,
        "batch_size": metrics[0].get("batch_size"),
        "plan": metrics[0].get("plan"),
        "jobs": len(run.jobs),
        "other_jobs": run.other_jobs,
        "seconds": round(seconds, 3),
        "jobs_per_hour": _ratio(3600 * len(run.jobs), seconds, 1),
        "seconds_per_job": round(seconds / len(run.jobs), 3),
        "frames_per_second": _ratio(sum(_metrics(job)["frames"] for job in later), generate_s, 2),
        "rendering": min(1.0, _ratio(rendering_s, end_s - begin_s, 3)),
        "gpu_load": None if gpu_load is None else round(gpu_load, 3),
        "peak_vram_mib": _most(metrics, "PEAK_VRAM_MIB"),
        "peak_ram_mib": None if (peak_kb := _most(metrics, "PEAK_RAM_KB")) is None else round(peak_kb / 1024, 1),
        "cost_per_job": None if run.price_per_hour is None else round(run.price_per_hour * seconds / 3600 / len(run.jobs), 6),
        "first_s": _medians([times[run.jobs[0].id]]),
        "later_s": _medians([times[job.id] for job in run.jobs[1:]]),
        "ids": [job.id for job in run.jobs],
    }
    return figures | {"notes": _notes(run, metrics), "advice": advice(figures)}


def advice(figures: dict[str, Any]) -> list[str]:
    """What limits this machine, the worst first, and what to change."""
    parts, engine = figures["later_s"], figures["engine"]
    if engine == "preview":
        return ["the preview engine says nothing about the speed of a model: worker models pull musetalk, and ENGINE=musetalk"]
    if figures["device"] == "cpu":
        return [f"{engine} ran on the CPU; find out why with worker doctor"]
    if figures["other_jobs"]:
        return ["measure again while no other job runs: these figures are only the sample jobs' share of the machine"]
    if figures["later_s"] is None:
        return ["a single job shows no overlap of fetching, rendering and uploading: use --jobs 4 or more"]
    slow = [name for name in ("fetch", "upload") if parts[name] > parts["generate"]]
    if slow:
        words = {"fetch": "copying and checking the inputs: a faster disk or CPU", "upload": "the upload: a faster network"}
        return [f"each job waits for {words[name]} helps, a faster GPU does not" for name in slow]
    if figures["rendering"] < BUSY:
        idle = f"the GPU renders nothing {1 - figures['rendering']:.0%} of the time"
        return [f"{idle}: it waits while inputs are prepared and videos are finished; more or faster CPU cores help"]
    if figures["gpu_load"] is not None and figures["gpu_load"] < BUSY:
        return ["the GPU waits for the CPU while frames are made: faster CPU cores or a larger BATCH_SIZE may help"]
    return ["the GPU is the limit: only a faster one makes more jobs per hour"]


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    where = figures["device"] + (f" ({figures['gpu']})" if figures["gpu"] else "")
    batch = f", batches of {figures['batch_size']}" if figures["batch_size"] else ""
    plan = f", plan {figures['plan']}" if figures["plan"] else ""
    peaks = {"GPU memory": figures["peak_vram_mib"], "RAM": figures["peak_ram_mib"]}
    peak = ", ".join(f"{mib / MIB_PER_GB:.1f} GB of {name}" for name, mib in peaks.items() if mib is not None)
    load = "" if figures["gpu_load"] is None else f"; GPU load {figures['gpu_load']:.0%}"
    cost = "" if figures["cost_per_job"] is None else f", {figures['cost_per_job']:.4f} $ per job"
    count = "1 job" if figures["jobs"] == 1 else f"{figures['jobs']} jobs"
    lines = [
        f"{figures['engine']} on {where}{batch}{plan}: {count} in {figures['seconds']:.1f} s",
        f"{figures['jobs_per_hour']:.1f} jobs per hour, {figures['seconds_per_job']:.1f} s per job{cost}",
        f"{figures['frames_per_second']:.1f} frames per second; rendering {figures['rendering']:.0%} of the time{load}",
        *([f"at most {peak}"] if peak else []),
        "",
        *_columns(figures["first_s"], figures["later_s"], figures["jobs"] - 1),
        "",
        *figures["notes"],
        *(f"to change: {line}" for line in figures["advice"]),
    ]
    return "\n".join(lines)


def _columns(first: dict[str, float], later: dict[str, float] | None, others: int) -> list[str]:
    """One line per part of a job's time, the engine's own indented below `generate`."""
    second = {0: "", 1: "second job"}.get(others, f"median of {others} later jobs")
    lines = [f"{'seconds':<18}{'first job':>10}{second:>26}".rstrip()]
    for name, seconds in first.items():
        word = WORDS.get(name, name) if name in PARTS else f"  {name}"
        median = f"{later[name]:>26.2f}" if later and name in later else ""
        lines.append(f"{word:<18}{seconds:>10.2f}{median}")
    return lines


def _rendered_at(job: Job, spent: dict[str, float]) -> float:
    """When its video was rendered, in wall seconds."""
    return _wall(job.finished_at) - spent.get("uploading", 0.0) - spent.get("generated", 0.0)


def _times(job: Job, spent: dict[str, float]) -> dict[str, float]:
    """Seconds by part of the job, in the order of the table."""
    wait_s = sum(spent.get(state, 0.0) for state in WAITING)
    before = {"wait": wait_s, "fetch": spent["fetching"], "generate": spent["generating"]}
    return before | _engine_times(job) | {"upload": spent["uploading"], "all": spent["all"]}


def _engine_times(job: Job) -> dict[str, float]:
    """What the engine measured itself: its stages, and each metric whose name ends with _s."""
    stages = job.result.get("stage_times", {})
    found = {name: stages[name] for name in ("preprocessing", "inference", "postprocessing") if name in stages}
    for name, value in _metrics(job).items():
        if name.endswith("_s"):
            found |= value if isinstance(value, dict) else {name.removesuffix("_s"): value}
    return found


def _metrics(job: Job) -> dict[str, Any]:
    return dict(job.result["metrics"])


def _medians(times: list[dict[str, float]]) -> dict[str, float] | None:
    names = dict.fromkeys(name for one in times for name in one)
    return {name: round(statistics.median(one.get(name, 0.0) for one in times), 3) for name in names} or None


def _most(metrics: list[dict[str, Any]], name: str) -> float | None:
    return max((one[name] for one in metrics if one.get(name) is not None), default=None)


def _notes(run: Run, metrics: list[dict[str, Any]]) -> list[str]:
    """What must be known to read the figures."""
    local = "the inputs are" if run.store != "local" else "inputs and outputs stay"
    notes = [f"{local} on this machine: the network's time for them is not in these figures"]
    if run.note:
        notes.append(run.note)
    if run.other_jobs:
        notes.append(f"the figures share the GPU with {run.other_jobs} other {'job' if run.other_jobs == 1 else 'jobs'}")
    caches = {one.get("avatar_cache") for one in metrics[1:]}
    if "hit" in caches:
        first = "the first job made" if metrics[0].get("avatar_cache") == "miss" else "was there before"
        notes.append(f"the later jobs use the cached avatar that {first}; a job with a new video has to make its own")
    return notes


def _ratio(value: float, by: float, digits: int) -> float:
    return round(value / by, digits) if by > 0 else 0.0


def _wall(text: str | None) -> float:
    return datetime.fromisoformat(text or "").timestamp()
