"""The support bundle: what somebody who is to help needs to know, without secrets, shown before it leaves."""

from __future__ import annotations

import io
import json
import zipfile
from collections import deque
from typing import Any

import flask

import answers
from admin import config, logs, shown, words
from admin.actions import operator
from admin.live import said
from jobqueue import clock

pages = flask.Blueprint("bundle", __name__)

LINES, JOBS, NOTES = 2000, 20, 100
#: How much of a file is shown before it is fetched, in characters.
PREVIEW = 4000


@pages.get("/bundle")
def page() -> str:
    files = contents()
    return flask.render_template("bundle.html", files=files, preview=PREVIEW, total=sum(map(len, files.values())))


@pages.get("/export/bundle.zip")
def export() -> flask.Response:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents().items():
            archive.writestr(name, text)
    response = flask.Response(packed.getvalue(), mimetype="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="worker-{clock.utc()[:10]}.zip"'
    return response


def contents() -> dict[str, str]:
    """The files of the bundle by name; every text has passed the mask."""
    worker, acting = flask.current_app.extensions["worker"], operator()
    made: dict[str, Any] = {
        "status.json": answers.status(worker.settings, acting),
        "versions.json": config.versions(worker.settings, said()),
        "settings.json": [vars(setting) for setting in shown.all_of(worker.settings)],
        "jobs.json": [_without_links(job, acting.outbox.history(job.id)) for job in acting.queue.newest(limit=JOBS)],
        "audit.json": acting.control.notes(NOTES),
    }
    texts = {name: json.dumps(value, indent=1, default=str, ensure_ascii=False) for name, value in made.items()}
    folder = worker.settings.data_dir / "logs"
    for name in logs.names(folder):
        texts[f"logs/{name}.txt"] = "".join(deque(logs.whole(folder, name, worker.mask), LINES))
    return {name: words.plain(worker.mask(text)) for name, text in texts.items()}


def _without_links(job: Any, history: Any) -> dict[str, Any]:
    """A job without where its files came from and went to: those are the customer's."""
    found = answers.detail(job, history)
    found["inputs"] = {name: "left out" if name.endswith("_url") else value for name, value in job.inputs.items()}
    found["result"] = {name: value for name, value in job.result.items() if name not in ("output_url", "b2_file_name")}
    return found
