"""The support bundle: what somebody who is to help needs to know, without secrets; one maker for the page and the command line.

It is made of texts, to be looked through before it leaves. Where a job's files came from and went to is the customer's.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import deque
from typing import Any

import answers
from jobqueue import clock
from jobqueue.job import Job
from jobqueue.outbox import Outbox
from operations import Operator
from settings import Settings
from support import log_files, setting
from support.log_files import Mask
from support.text import plain
from support.versions import versions

#: The newest of each: lines of a program's log, jobs, rows of the audit trail.
LINES, JOBS, NOTES = 2000, 20, 100
_LINK = re.compile(r"https?://[^\s\"'<>]+")


def contents(settings: Settings, operator: Operator, mask: Mask, examined: dict[str, Any] | None) -> dict[str, str]:
    """The texts of the bundle by the names of their files; each has passed the mask.

    examined: what `worker doctor --json` says; None if there was no time for it.
    """
    made: dict[str, Any] = {
        "doctor.json": examined or {"ok": None, "said": "the examination was not done in time"},
        "status.json": answers.status(settings, operator),
        "versions.json": versions(settings, operator.control.published()),
        "settings.json": [vars(one) for one in setting.all_of(settings)],
        "jobs.json": [_without_links(job, operator.outbox) for job in operator.queue.newest(limit=JOBS)],
        "audit.json": operator.control.notes(NOTES),
    }
    texts = {name: json.dumps(value, indent=1, default=str, ensure_ascii=False) for name, value in made.items()}
    folder = settings.data_dir / "logs"
    for name in log_files.names(folder):
        texts[f"logs/{name}.txt"] = "".join(deque(log_files.whole(folder, name, mask), LINES))
    return {name: plain(mask(text)) for name, text in texts.items()}


def packed(texts: dict[str, str]) -> bytes:
    """The texts as a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return file.getvalue()


def file_name() -> str:
    """What a bundle of today is called."""
    return f"worker-{clock.utc()[:10]}.zip"


def _without_links(job: Job, outbox: Outbox) -> dict[str, Any]:
    found = answers.detail(job, outbox.history(job.id), outbox.reports(job.id))
    found["inputs"] = {name: "left out" if name.endswith("_url") else value for name, value in job.inputs.items()}
    found["result"] = {name: value for name, value in job.result.items() if name not in ("output_url", "b2_file_name")}
    for told, name in ((found["history"], "answer"), (found["reports"], "words")):  # a server may repeat what it was sent
        for one in told:
            one[name] = one[name] and _LINK.sub("(a link)", one[name])
    return found
