"""The metrics of a finished job as the protocol defines them, shared by reports and answers."""

from __future__ import annotations

from typing import Any

from jobqueue.job import Job

STEPS = ("download", "validation", "preprocessing", "inference", "postprocessing", "upload")


#: Metrics that every job has even if not measured, and those that one engine adds.
MEASURED = ("GENERATION_TIME_SEC", "SCRIPT_WALL_TIME_SEC", "PEAK_VRAM_MIB", "PEAK_RAM_KB", "frames", "fps", "engine")
OF_ENGINE = {"fastwan": ("duration_sec", "peak_vram_gb")}


def metrics(job: Job, gpu_class: str | None) -> dict[str, Any]:
    """The metrics of PROTOCOL §3 and whatever else the engine measured; the same in answers and reports. A number that was not
    measured is null; times are in seconds."""
    found, times = job.result.get("metrics", {}), stage_times(job)
    total_s = round(sum(times.values()), 3) if times else None
    known: dict[str, Any] = dict.fromkeys((*MEASURED, *OF_ENGINE.get(job.engine, ()))) | found
    if known["SCRIPT_WALL_TIME_SEC"] is None:  # the engine did not come to its end
        known["SCRIPT_WALL_TIME_SEC"] = total_s
    return known | {
        "b2_bucket": job.result.get("b2_bucket"),
        "b2_file_name": job.result.get("b2_file_name"),
        "gpu_class": gpu_class,
        "stage_times": dict.fromkeys(STEPS) | times,
        "total_time": total_s,
    }


def stage_times(job: Job) -> dict[str, float]:
    """Seconds by step, as far as the job came."""
    times = job.result.get("stage_times", {})
    return {step: times[step] for step in STEPS if times.get(step) is not None}
