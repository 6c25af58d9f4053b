"""Errors in plain words: who is at fault, and what to try. A table, looked through from the top."""

from __future__ import annotations

import re
from typing import Any

#: What the error's message says (any case), and what helps; the first that fits.
HINTS = (
    (r"no room|out of memory|cuda error: 2\b", "Close other programs on the GPU, or set a lower BATCH_SIZE."),
    (r"no face", "The video must show a face from the front. Look at the input beside."),
    (r"web page|html page", "The link leads to a page, not a file; it may have expired or need a log-in."),
    (r"b2.*\b429\b|too many requests", "The store asks to be slower; the upload is tried again by itself."),
    (r"b2.*\b40[13]\b|refuses the key|not authori[sz]ed", "Check B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME, then start anew."),
    (r"\bb2\b", "Check the B2 key and bucket; finished videos wait here meanwhile."),
    (r"answered 40[13]|expired|signature", "The link has expired or is not for us. The sender must make a new one."),
    (r"answered 4", "The link is dead. The sender must make a new one."),
    (r"moov|cut off|truncated", "The file is cut off. It must be uploaded again, whole."),
    (r"\bnan\b|not a number", "The model gave no numbers. Verify its weights: worker models verify. The card may be at fault."),
    (r"disk is full|no space left", "Free some space, or set a lower DATA_LIMIT_GB or KEEP_DAYS."),
    (r"weights|no such file|filenotfound", "A file of the model is missing. Fetch it with: worker models pull."),
    (r"driver.*(too old|insufficient)", "The driver is older than the engine's CUDA. Update it on the host."),
    (
        r"gpu is lost|fallen off the bus|device-side assert|unspecified launch|illegal memory",
        "The card failed. Restart the inference program; if it happens again, the machine.",
    ),
    (r"job_timeout_sec|stuck|did not move", "The job was stuck or too long for JOB_TIMEOUT_SEC."),
    (r"died \d+ times", "The job ends the program whenever it runs. The log below has the last words before each death."),
    (
        r"connection refused|timed out|name or service|temporary failure",
        "The other side could not be reached. If only this machine has it, look at its network.",
    ),
)

_KINDS = {"media_error": "The input cannot be used", "processing_error": "This worker could not do it"}


def hint(error: dict[str, Any] | None) -> str | None:
    """What to try; None if the table knows nothing."""
    message = str((error or {}).get("message", ""))[:4000].lower()
    return next((text for pattern, text in HINTS if re.search(pattern, message)), None)


def blame(error: dict[str, Any]) -> str:
    """Who is at fault, in a few words."""
    return _KINDS.get(error.get("error_type", ""), "Something unforeseen happened")
