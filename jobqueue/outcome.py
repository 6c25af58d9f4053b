"""The metrics of a finished job in the words of the wire contract, made once for everyone who is answered with them."""

from __future__ import annotations

from typing import Any

from jobqueue.job import Job

STEPS = ("download", "validation", "preprocessing", "inference", "postprocessing", "upload")


def metrics(job: Job, gpu_class: str | None) -> dict[str, Any]:
    """What PROTOCOL §3 lists, from what the stages found. A number that nobody measured is null; times are in seconds."""
    found = job.result.get("metrics", {})
    times = stage_times(job)
    wanted = ("GENERATION_TIME_SEC", "SCRIPT_WALL_TIME_SEC", "PEAK_VRAM_MIB", "PEAK_RAM_KB", "frames", "fps")
    return {
        "b2_bucket": job.result.get("b2_bucket"),
        "b2_file_name": job.result.get("b2_file_name"),
        "gpu_class": gpu_class,
        **dict.fromkeys(wanted),
        **found,
        "stage_times": times,
        "total_time": round(sum(times.values()), 3),
    }


def stage_times(job: Job) -> dict[str, float]:
    """Seconds by step, as far as the job came."""
    times = job.result.get("stage_times", {})
    return {step: times[step] for step in STEPS if times.get(step) is not None}
