"""A job of the operator's own: a form with files or links and the engine's parameters; and the sample job's button.

Files go to disk as they arrive, into the folder that the poller takes them from; what is refused leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import flask
from werkzeug.datastructures import FileStorage

from admin import fields
from admin.actions import operator
from admin.security import LARGE
from jobqueue import intake, spool
from operations import incoming

pages = flask.Blueprint("submit", __name__)

#: Room on the disk that uploads leave alone, in bytes.
SPARE_BYTES = 500_000_000
#: What the fields beside the files may take, in bytes.
FIELDS_BYTES = 1_000_000


def _most_bytes(worker: Any) -> int:
    room = shutil.disk_usage(worker.settings.data_dir).free - SPARE_BYTES
    return max(FIELDS_BYTES, min(int(2 * worker.settings.MAX_INPUT_MB * 1e6) + FIELDS_BYTES, room))


LARGE["submit.send"] = _most_bytes


class Request(flask.Request):
    """Puts files where the poller takes them from: named at the end, and gone with the request until then."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        if self.endpoint != "submit.send":
            return super()._get_file_stream(total_content_length, content_type, filename, content_length)
        folder = incoming(flask.current_app.extensions["worker"].settings.data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix=".arriving-")


@pages.get("/submit")
def form() -> str:
    return _form({}, "")


@pages.post("/submit")
def send() -> flask.typing.ResponseReturnValue:
    settings = flask.current_app.extensions["worker"].settings
    kept: list[Path] = []
    try:
        payload = _payload(intake.shape(settings.ENGINE), settings, kept)
        job = operator().submit(payload, intake.shape(settings.ENGINE), settings.data_dir)
    except ValueError as error:
        for file in kept:
            file.unlink(missing_ok=True)
        return _form(flask.request.form, str(error)), 400
    return flask.redirect(f"/jobs/{job.id}", 303)


def _form(values: Any, failed: str) -> str:
    settings = flask.current_app.extensions["worker"].settings
    shape = intake.shape(settings.ENGINE)
    return flask.render_template(
        "submit.html",
        engine=settings.ENGINE,
        links=[(name, fields.MEDIA[name]) for name in intake.LINKS[shape]],
        own=fields.OWN[shape],
        params=fields.PARAMS.get(settings.ENGINE, ()),
        values=values,
        failed=failed,
        max_mb=settings.MAX_INPUT_MB,
    )


def _payload(shape: str, settings: Any, kept: list[Path]) -> dict[str, Any]:
    """What the form asks for. Files that are kept are noted in `kept`. Raises ValueError by field."""
    form, payload = flask.request.form, {}
    for name in intake.LINKS[shape]:
        link, sent = form.get(name, "").strip(), flask.request.files.get(f"{name}_file")
        if link and not link.startswith(("http://", "https://")):
            raise ValueError(f"{name}: must be an http:// or https:// link, or choose a file")
        if sent is not None and sent.filename:
            if link:
                raise ValueError(f"{name}: both a file and a link were given; remove one")
            link = _keep(sent, name, settings, kept)
        if link:
            payload[name] = link
    payload |= fields.read(fields.OWN[shape], form)
    params = {**_json(form.get("params", "")), **fields.read(fields.PARAMS.get(settings.ENGINE, ()), form)}
    return payload | ({"params": params} if params else {})


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"params: is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("params: must be an object, like {}")
    return found


def _keep(sent: FileStorage, name: str, settings: Any, kept: list[Path]) -> str:
    """Give a file that has arrived its name; returns its link."""
    size = sent.stream.seek(0, os.SEEK_END)
    if size == 0 or size > settings.MAX_INPUT_MB * 1e6:
        raise ValueError(f"{name}: {size / 1e6:.1f} MB; must be a file of at most {settings.MAX_INPUT_MB:g} MB (MAX_INPUT_MB)")
    sent.stream.flush()
    target = incoming(settings.data_dir) / secrets.token_hex(8)
    os.link(sent.stream.name, target)
    kept.append(target)
    spool.sync(target)
    return target.as_uri()
