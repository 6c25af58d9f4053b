"""Errors in plain words: who is at fault, and what to try. The first matching row wins."""

from __future__ import annotations

import re
from typing import Any

#: A pattern of the error's message (any case), and the remedy; the first match wins.
HINTS = (
    (r"no room|out of memory|cuda error: 2\b", "Close other programs on the GPU, or set a lower BATCH_SIZE."),
    (r"no face", "The video must show a face from the front. Check the input below."),
    (r"web page|html page", "The link leads to a page, not a file; it may have expired or require a login."),
    (r"b2.*\b429\b|too many requests", "The store is rate-limiting; the upload is retried automatically."),
    (r"b2.*\b40[13]\b|refuses the key|not authori[sz]ed", "Check B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME, then restart."),
    (r"\bb2\b", "Check the B2 key and bucket; finished videos wait on this machine."),
    (r"answered 40[13]|expired|signature", "The link has expired or denies us access. The sender must create a new one."),
    (r"answered 4", "The link is dead. The sender must create a new one."),
    (r"moov|cut off|truncated", "The file is truncated. It must be uploaded again in full."),
    (r"\bnan\b|not a number", "The model produced NaN. Verify its weights: worker models verify. The card may be faulty."),
    (r"disk is full|no space left", "Free some space, or set a lower DATA_LIMIT_GB or KEEP_DAYS."),
    (r"weights|no such file|filenotfound", "A model file is missing. Download it with: worker models pull."),
    (r"driver.*(too old|insufficient)", "The driver is older than the engine's CUDA. Update it on the host."),
    (
        r"gpu is lost|fallen off the bus|device-side assert|unspecified launch|illegal memory",
        "The card failed. Restart the inference program; if it happens again, reboot the machine.",
    ),
    (r"job_timeout_sec|stuck|did not move", "The job was stuck or took longer than JOB_TIMEOUT_SEC."),
    (r"died \d+ times", "The job crashes the program whenever it runs. The log below has the last lines before each crash."),
    (
        r"connection refused|timed out|name or service|temporary failure",
        "The server could not be reached. If this happens on this machine only, check its network.",
    ),
)

_KINDS = {"media_error": "The input cannot be used", "processing_error": "This worker could not process it"}


def hint(error: dict[str, Any] | None) -> str | None:
    """What to try; None if no row matches."""
    message = str((error or {}).get("message", ""))[:4000].lower()
    return next((text for pattern, text in HINTS if re.search(pattern, message)), None)


def blame(error: dict[str, Any]) -> str:
    """Who is at fault, in a few words."""
    return _KINDS.get(error.get("error_type", ""), "An unexpected error occurred")
