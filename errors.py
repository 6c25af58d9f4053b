"""The errors of a job, in the terms of the protocol; the lowest layer, importable from anywhere.

A library's error is translated into one of these once, where the library is imported. `jobqueue.worker.work` decides from
the class alone whether a stage is retried; nothing else retries a job. This module must not import any of our modules.
"""

from __future__ import annotations

import errno
import json
from typing import Any

#: Resources that a program, its machine or its disk can run out of temporarily. None of it is the job's fault.
_SHORT_OF = {
    errno.EMFILE: "this program is out of file handles (ulimit -n)",
    errno.ENFILE: "this machine is out of file handles",
    errno.ENOMEM: "this machine has no memory left",
    errno.ENOSPC: "the disk is full; the job is retried when there is space",
    errno.EDQUOT: "the disk quota is exhausted; the job is retried when there is space",
    errno.EROFS: "the disk is read-only at the moment",
}

#: Maximum characters of a message, and of the end of a stack trace, that a job keeps and reports.
MAX_TEXT = 20_000


class JobError(Exception):
    """A job cannot continue. `message` is fit for the user: what was wrong, and what is allowed.

    error_type   PROTOCOL's name for it: media_error, processing_error, unknown_error
    retryable    whether another worker (or this one, later) could succeed
    stage        download validation preprocessing inference postprocessing upload unknown; None: the stage that ran
    details      small JSON values that help find the cause; never a secret, never a signed URL
    """

    error_type = "unknown_error"
    retryable = True

    def __init__(self, message: str, *, stage: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage
        self.details = details

    def as_json(self, default_stage: str) -> dict[str, Any]:
        """The structured error that a failed job keeps (PROTOCOL §4). A library's text of any length is cut to MAX_TEXT."""
        trace = self.details.get("stack_trace")
        return {
            "message": self.message[:MAX_TEXT],
            "error_type": self.error_type,
            "retryable": self.retryable,
            "stage": self.stage or default_stage,
            "details": {name: _as_json(value) for name, value in self.details.items() if name != "stack_trace"},
            "stack_trace": trace[-MAX_TEXT:] if isinstance(trace, str) else trace,
        }


def _as_json(value: Any) -> Any:
    """The value, or its text if it is not valid JSON: an error that could not be stored would recur forever."""
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
    """Something outside is temporarily down (store, network, full disk): retried until the job's deadline."""

    error_type = "processing_error"


class Unreachable(JobError):
    """A server that only this job needs failed after all tries: not retried here, but another worker may try, or this one
    later, if the job is sent again."""

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
    """A library's error as one log line: at most 300 characters, its class name if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def shortage(error: BaseException) -> Unavailable | None:
    """The resource that this machine ran out of, according to a foreign error; None if it means something else."""
    if isinstance(error, OSError) and error.errno in _SHORT_OF:
        return Unavailable(_SHORT_OF[error.errno])
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return Unavailable("this machine cannot start more threads (ulimit -u, the container's process limit, or memory)")
    return None


def lacks_handles(error: BaseException | None) -> bool:
    """Whether this process is out of file handles, according to an error or its causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return True
        error = error.__cause__ or error.__context__
    return False
