"""The JSON of PROTOCOL.md §3: what a body must hold, field by field, and what jobs and claims look like in answers.

Bodies of workers may hold more than is named here (additions), a submission may not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobqueue.database import Row
from orchestrator.fields import Field, InvalidBody, checked_body, is_texts, link, matching, number, object_, one_of, text, whole

FASTWAN_DEFAULTS = {
    "prompt": "",
    "num_frames": 121,
    "width": 720,
    "height": 1280,
    "steps": 4,
    "seed": 42,
    "guidance_scale": 1.0,
}
MUSETALK_DEFAULTS = {"aspect_ratio": "1:1", "resolution": "512x512"}

SYSTEM_INFO = (
    "cpu_cores_physical",
    "cpu_cores_logical",
    "cpu_model",
    "ram_total_gb",
    "ram_available_gb",
    "disk_total_gb",
    "disk_free_gb",
    "download_speed_mbps",
)
#: Names that may stand in a path and in an object's name.
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}"

SUBMISSION = {
    "engine": one_of("musetalk", "fastwan"),
    "musetalk_job_id": matching(NAME, "job-1: letters, digits, '.', ':', '_', '-', at most 128"),
    "params": object_(),
    "buffer": Field("must be true or false", lambda v: isinstance(v, bool), False),
}
INPUTS = {
    "musetalk": {
        "video_url": link(),
        "audio_url": link(),
        "aspect_ratio": matching(r"[1-9]\d{0,4}:[1-9]\d{0,4}", "16:9"),
        "resolution": matching(r"[1-9]\d{1,4}x[1-9]\d{1,4}", "512x512"),
    },
    "fastwan": {
        "image_url": link(),
        "prompt": text(10_000, empty=True, required=False),
        "negative_prompt": text(10_000, empty=True, required=False),
        "num_frames": whole(1, 241),
        "width": whole(64, 1536),
        "height": whole(64, 1536),
        "steps": whole(1, 100),
        "seed": whole(0, 2**63 - 1),
        "guidance_scale": number(0, 100),
    },
}
_WORKER = text(256)
_GPU = text(256, null=True)
_WORKER_TYPE = one_of("main", "transient", "expensive")
_BUSY = one_of("idle", "busy")
_JOB_IDS = Field("must be a list of texts", is_texts, False)

HEARTBEATS = {
    "main": {
        "status": _BUSY,
        "current_job_id": text(256, null=True),
        "provider": text(256),
        "gpu_class": _GPU,
        "worker_type": _WORKER_TYPE,
        "system_info": Field(
            f"must be an object with {', '.join(SYSTEM_INFO)}, each a number, a text or null", lambda v: _is_system_info(v)
        ),
        "job_ids": _JOB_IDS,
    },
    "buffer": {
        "status": _BUSY,
        "gpu_class": _GPU,
        "capacity": Field("must be a whole number, at least 1", lambda v: type(v) is int and v >= 1),
        "error": Field("must be a text or null", lambda v: v is None or isinstance(v, str)),
        "job_ids": _JOB_IDS,
    },
}
CLAIMS = {
    "main": {"worker_id": _WORKER, "worker_type": _WORKER_TYPE, "gpu_class": _GPU},
    "buffer": {"worker_id": _WORKER},
}
PHASES = ("downloading", "preparing", "inferring", "encoding", "uploading", "completed", "failed")
_ERROR = Field("must be a text or null, and a text if the job failed", lambda v: v is None or isinstance(v, str), False)
PROGRESS = {
    "status": one_of("running", "succeeded", "failed"),
    "progress": number(0, 1, required=True),
    "phase": one_of(*PHASES),
    "worker_id": _WORKER,
    "metrics": object_(null=True),
    "error": _ERROR,
    "output_url": link(null=True, required=False),
}
BUFFER_STATUS = {
    "status": one_of("succeeded", "failed"),
    "worker_id": Field(_WORKER.rule, _WORKER.accepts, False),
    "metrics": object_(null=True),
    "error": _ERROR,
    "output_url": link(null=True, required=False),
}


def submission(body: Any) -> dict[str, Any]:
    """A job as it is submitted. Raises InvalidBody, naming every field."""
    shape: dict[str, Field] = {**SUBMISSION, **INPUTS.get(_engine(body), {})}
    checked = checked_body(body, shape)
    if strange := [name for name in checked if name not in shape]:
        raise InvalidBody({name: f"is unknown; a {checked['engine']} job has {', '.join(shape)}" for name in strange})
    return checked


def report(body: Any, shape: Mapping[str, Field]) -> dict[str, Any]:
    """A progress or status report. Raises InvalidBody."""
    checked = checked_body(body, shape)
    if checked["status"] == "succeeded" and not checked.get("output_url"):
        raise InvalidBody({"output_url": "is missing; a job that succeeded has the link to its video"})
    if checked["status"] == "failed" and not checked.get("error"):
        raise InvalidBody({"error": "is missing; a job that failed says why"})
    return checked


def _is_system_info(value: Any) -> bool:
    kinds = (int, float, str, type(None))
    return isinstance(value, dict) and all(name in value and isinstance(value[name], kinds) for name in SYSTEM_INFO)


def _engine(body: Any) -> str:
    engine = body.get("engine") if isinstance(body, dict) else None
    return engine if isinstance(engine, str) else ""


# ---- answers -----------------------------------------------------------------------------------------------------------


def claimed(job: Row) -> dict[str, Any]:
    """A job as its worker gets it."""
    sent: dict[str, Any] = json.loads(job["submission"])
    defaults = MUSETALK_DEFAULTS if job["engine"] == "musetalk" else FASTWAN_DEFAULTS
    inputs = {name: sent[name] for name in (*INPUTS[job["engine"]], "params") if name in sent}
    ids = {"musetalk_job_id": job["id"]}
    if job["buffer_job_id"]:
        ids["buffer_job_id"] = job["buffer_job_id"]
    return {**ids, **defaults, **inputs}


def shown(job: Row) -> dict[str, Any]:
    """A job as an operator sees it."""
    shown = {name: job[name] for name in SHOWN}
    metrics = json.loads(job["metrics"]) if job["metrics"] else None
    cancel = bool(job["cancel_requested"])
    return {"musetalk_job_id": job["id"], **claimed(job), **shown, "cancel_requested": cancel, "metrics": metrics}


SHOWN = (
    *("engine", "state", "buffer_job_id", "worker", "attempts", "requeues", "progress", "phase"),
    *("error", "output_url", "created_at", "updated_at", "finished_at"),
)
