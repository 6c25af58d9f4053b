"""The support bundle: what a supporter needs to know, without secrets; shared by the page and the command line.

It consists of texts, to be reviewed before it is sent. The addresses of a job's files are the customer's, and left out.
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

#: Maximum of each, newest first: lines of a program's log, jobs, rows of the audit trail.
LINES, JOBS, NOTES = 2000, 20, 100
_LINK = re.compile(r"https?://[^\s\"'<>]+")


def contents(settings: Settings, operator: Operator, mask: Mask, examined: dict[str, Any] | None) -> dict[str, str]:
    """The texts of the bundle by file name, all masked.

    examined: the output of `worker doctor --json`; None if it was not done in time.
    """
    made: dict[str, Any] = {
        "doctor.json": examined or {"ok": None, "said": "the checks did not finish in time"},
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
    """The file name of a bundle made today."""
    return f"worker-{clock.utc()[:10]}.zip"


def _without_links(job: Job, outbox: Outbox) -> dict[str, Any]:
    found = answers.detail(job, outbox.history(job.id), outbox.reports(job.id))
    found["inputs"] = {name: "left out" if name.endswith("_url") else value for name, value in job.inputs.items()}
    found["result"] = {name: value for name, value in job.result.items() if name not in ("output_url", "b2_file_name")}
    for told, name in ((found["history"], "answer"), (found["reports"], "words")):  # a server may echo what it was sent
        for one in told:
            one[name] = one[name] and _LINK.sub("(a link)", one[name])
    return found
