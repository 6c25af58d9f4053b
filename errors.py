"""What can go wrong with a job, in the words of the wire contract; the ground floor, importable from anywhere.

A library's error is translated into one of these once, at that library's door. Whether a stage is tried again is decided
by `jobqueue.worker.work` from the class alone; nobody else retries a job. This module must never import anything of ours.
"""

from __future__ import annotations

import errno
import json
from typing import Any

#: What a program, its machine or its disk can be short of for a while. None of it is the job's fault.
_SHORT_OF = {
    errno.EMFILE: "this program has no file handle left (ulimit -n)",
    errno.ENFILE: "this machine has no file handle left",
    errno.ENOMEM: "this machine has no memory left",
    errno.ENOSPC: "the disk is full; the job is tried again when there is room",
    errno.EDQUOT: "the quota of the disk is used up; the job is tried again when there is room",
    errno.EROFS: "the disk can only be read now",
}

#: Characters of a message, and of the end of a stack trace, that a job keeps and reports.
LONGEST = 20_000


class JobError(Exception):
    """A job cannot go on. `message` is fit for the user: what was wrong, and what is allowed.

    error_type   what PROTOCOL calls it: media_error, processing_error, unknown_error
    retryable    whether another worker (or this one, later) could succeed
    stage        download validation preprocessing inference postprocessing upload unknown; None: the stage that ran
    details      small JSON values that help to find the cause; never a secret, never a signed URL
    """

    error_type = "unknown_error"
    retryable = True

    def __init__(self, message: str, *, stage: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage
        self.details = details

    def as_json(self, default_stage: str) -> dict[str, Any]:
        """The structured error that a failed job keeps (PROTOCOL §4). A library's text of any length is cut to LONGEST."""
        trace = self.details.get("stack_trace")
        return {
            "message": self.message[:LONGEST],
            "error_type": self.error_type,
            "retryable": self.retryable,
            "stage": self.stage or default_stage,
            "details": {name: _as_json(value) for name, value in self.details.items() if name != "stack_trace"},
            "stack_trace": trace[-LONGEST:] if isinstance(trace, str) else trace,
        }


def _as_json(value: Any) -> Any:
    """The value, or its text if JSON has no such: an error that could not be kept would come back for ever."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


class InvalidInput(JobError):
    """The sender's fault (dead link, corrupt or unsupported file, no face, too long): never retried."""

    error_type = "media_error"
    retryable = False


class Unavailable(JobError):
    """Something outside is down for the moment (store, network, disk full): retried until the job's deadline."""

    error_type = "processing_error"


class Unreachable(JobError):
    """A server that only this job needs does not give what it should, after all tries: not tried again here, but another
    worker may have it, or this one later, when it is sent again."""

    error_type = "processing_error"


class EngineFailed(JobError):
    """This worker is at fault (CUDA error, out of memory, missed deadline): retried a few times, then handed back."""

    error_type = "processing_error"


class OutOfMemory(EngineFailed):
    """The card or the machine ran out of memory."""


class Cancelled(Exception):
    """Someone asked for the job to end. Not an error."""


class LostJob(Exception):
    """The row is no longer ours: stop at once and write nothing more."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for one line of a log: at most 300 characters, its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def shortage(error: BaseException) -> Unavailable | None:
    """What this machine is short of, by an error that is not one of ours; None if that is not what it says."""
    if isinstance(error, OSError) and error.errno in _SHORT_OF:
        return Unavailable(_SHORT_OF[error.errno])
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return Unavailable(
            "no thread can be started on this machine (ulimit -u, the container's limit of processes, or memory)"
        )
    return None


def lacks_handles(error: BaseException | None) -> bool:
    """Whether this process has no file handle left, by an error or by what was raised before it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return True
        error = error.__cause__ or error.__context__
    return False
