"""The support bundle as a page: shown before it is fetched. What is in it is `support.bundle`'s business."""

from __future__ import annotations

import flask

from admin import doctor
from admin.actions import operator
from support import bundle

pages = flask.Blueprint("bundle", __name__)

#: How much of a file is shown before it is fetched, in characters.
PREVIEW = 4000
#: An examination that is this old will do, in seconds: what is shown should be what is fetched.
EXAMINED_S = 300.0


@pages.get("/bundle")
def page() -> str:
    files = _contents()
    return flask.render_template("bundle.html", files=files, preview=PREVIEW, total=sum(map(len, files.values())))


@pages.get("/export/bundle.zip")
def export() -> flask.Response:
    response = flask.Response(bundle.packed(_contents()), mimetype="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="{bundle.file_name()}"'
    return response


def _contents() -> dict[str, str]:
    worker = flask.current_app.extensions["worker"]
    return bundle.contents(worker.settings, operator(), worker.mask, doctor.found(EXAMINED_S, doctor.WAIT_S))
