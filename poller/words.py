"""The bodies of progress and terminal reports, exactly as in PROTOCOL §3."""

from __future__ import annotations

from typing import Any

from jobqueue import outcome
from jobqueue.job import Job
from poller.identity import Identity

PHASES = ("downloading", "preparing", "inferring", "encoding", "uploading")
#: The phase and minimum progress of a state, until its program reports more.
_STATES = {
    "claimed": ("downloading", 0.05),
    "fetching": ("downloading", 0.05),
    "ready": ("preparing", 0.10),
    "generating": ("preparing", 0.10),
    "generated": ("uploading", 0.95),
    "uploading": ("uploading", 0.95),
}
#: The progress of a running job stays below 1.
_MOST = 0.99


def running(job: Job, identity: Identity) -> dict[str, Any]:
    """A progress report of an unfinished job."""
    phase, least = _STATES[job.state]
    if job.state == "generating" and job.phase in PHASES[1:4]:
        phase = str(job.phase)
    return {
        "status": "running",
        "progress": round(min(max(job.progress, least), _MOST), 4),
        "phase": phase,
        "worker_id": identity.worker_id,
        "metrics": {"frames_done": job.frames_done, "frames_total": job.frames_total},
        "error": None,
        "config_label": identity.config_label,
        "batch_size": _batch_size(job, identity),
    }


def ended(job: Job, identity: Identity, gpu_class: str, told: float = 0.0) -> dict[str, Any]:
    """The terminal progress report. told: the last reported progress, which is the minimum."""
    succeeded = job.state == "succeeded"
    body = {
        "status": "succeeded" if succeeded else "failed",
        "progress": 1.0 if succeeded else round(min(max(job.progress, told), _MOST), 4),
        "phase": "completed" if succeeded else "failed",
        "worker_id": identity.worker_id,
        "metrics": outcome.metrics(job, gpu_class),
        "error": error(job),
        "config_label": identity.config_label,
        "batch_size": _batch_size(job, identity),
    }
    return body | ({"output_url": job.result["output_url"]} if succeeded else {})


def buffer_ended(job: Job, gpu_class: str) -> dict[str, Any]:
    """The terminal status for a buffer orchestrator."""
    succeeded = job.state == "succeeded"
    return {
        "status": "succeeded" if succeeded else "failed",
        "error": error(job),
        "output_url": job.result["output_url"] if succeeded else None,
        "metrics": outcome.metrics(job, gpu_class),
    }


def error(job: Job) -> str | None:
    """Why a job ended without a result, None if it has one."""
    if job.state == "succeeded":
        return None
    if job.state == "cancelled":
        return "cancelled"
    return str((job.error or {}).get("message") or "failed for an unknown reason")


def _batch_size(job: Job, identity: Identity) -> Any:
    """Frames per batch; if it is measured, the engine's result."""
    return identity.batch_size or job.result.get("metrics", {}).get("batch_size")
