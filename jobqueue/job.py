"""The central type: `Job`, a row of the queue, and its three stages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from jobqueue.database import Row

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
WORKING = frozenset({"fetching", "generating", "uploading"})
WAITING = frozenset({"claimed", "ready", "generated"})
#: Not yet on the GPU.
BEFORE_GPU = ("claimed", "fetching", "ready")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A waiting state, a working state and the program that does the work.

    default_step   the protocol's name for the step of an error of unknown origin (PROTOCOL §4 `stage`)
    max_attempts  starts after which an error of this worker ends the job
    max_crashes   owners that may die in this stage before the job is considered the cause
    """

    name: str
    program: str
    waiting: str
    working: str
    done: str
    default_step: str
    max_attempts: int = 3
    max_crashes: int = 3


FETCH = Stage(
    name="fetch",
    program="poller",
    waiting="claimed",
    working="fetching",
    done="ready",
    default_step="download",
    max_crashes=20,
)
GENERATE = Stage(
    name="generate", program="inference", waiting="ready", working="generating", done="generated", default_step="inference"
)
UPLOAD = Stage(
    name="upload",
    program="uploader",
    waiting="generated",
    working="uploading",
    done="succeeded",
    default_step="upload",
    max_crashes=20,
)
STAGES = (FETCH, GENERATE, UPLOAD)


def stage_working(state: str) -> Stage:
    """The stage that works in this state: one of WORKING."""
    return next(stage for stage in STAGES if stage.working == state)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row. `inputs` and `params` never change within a round; everything else is a snapshot."""

    #: The orchestrator's id and our primary key.
    id: str
    number: int
    #: main, buffer, queue or local: who gets the report.
    source: str
    buffer_job_id: str | None
    queue_job_id: str | None
    #: musetalk or fastwan: the shape of the job.
    engine: str
    inputs: dict[str, Any]
    params: dict[str, Any]
    state: str
    #: How often the job was accepted; a failed job that is claimed again starts a new round.
    round: int
    #: Starts of the current stage.
    attempt: int
    #: Owners that died in the current stage.
    crashes: int
    #: The program run that works on it; None if nobody does.
    owner: str | None
    phase: str | None
    #: 0 to 1; never goes down within a round.
    progress: float
    frames_done: int | None
    frames_total: int | None
    #: Set when someone cancelled the job.
    cancel_reason: str | None
    not_before: float
    #: Boot clock, seconds: when the current stage was entered.
    stage_since: float
    #: Results of the stages: stage_times, metrics, output_url …
    result: dict[str, Any] = field(default_factory=dict)
    #: message, error_type, retryable, stage, details; None unless failed.
    error: dict[str, Any] | None = None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


@dataclass(frozen=True, kw_only=True)
class Event:
    """One state change. A terminal one is also the report that must be acknowledged (`sent_at`)."""

    id: int
    job: str
    round: int
    state: str
    attempt: int
    owner: str | None
    detail: str | None
    at: str
    tries: int
    not_before: float
    sent_at: str | None
    answer: str | None
    #: Whether it ends a round: a report that must be acknowledged.
    ends: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report on a job to the orchestrator, and its answer."""

    job: str
    round: int
    #: Where it was sent: progress, or status (of a buffer).
    place: str
    #: running, or the reported end: succeeded or failed.
    said: str
    #: 0 to 1; it and the phase are None if not reported.
    progress: float | None
    phase: str | None
    #: HTTP; None if there was no answer.
    status: int | None
    #: The beginning of the answer, or why there was none; without secrets, safe to show.
    words: str
    took_ms: float
    at: str


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A new job, checked by `jobqueue.intake`. `error`: why it cannot be run; it is then added as failed."""

    id: str
    source: str
    engine: str
    inputs: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    buffer_job_id: str | None = None
    queue_job_id: str | None = None
    error: dict[str, Any] | None = None


def job_from_row(row: Row) -> Job:
    """The one place where a row becomes a Job."""
    loaded = {name: json.loads(row[name]) for name in ("inputs", "params", "result")}
    error = json.loads(row["error"]) if row["error"] else None
    return Job(**{**row, **loaded, "error": error})
