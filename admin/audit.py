"""The audit trail: who did what, when, from where, to what, why, and what came of it; to read, to search, to keep as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import flask

from admin.live import live
from support.text import cell

pages = flask.Blueprint("audit", __name__)

PAGE = 50
#: Rows that a file has at the most.
MAX_EXPORTED = 100_000
COLUMNS = ("at", "actor", "action", "target", "reason", "result")


@pages.get("/audit")
def page() -> flask.Response:
    return live(_page)


@pages.get("/export/audit.csv")
def export() -> flask.Response:
    response = flask.Response(flask.stream_with_context(_csv(_text())), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


def _page() -> str:
    before = flask.request.args.get("before", 2**62, type=int)
    found = flask.current_app.extensions["worker"].control.notes(PAGE + 1, _text(), max(0, min(before, 2**62)))
    older = found[PAGE - 1]["id"] if len(found) > PAGE else None
    return flask.render_template("audit.html", notes=found[:PAGE], q=_text(), older=older)


def _text() -> str:
    return flask.request.args.get("q", "")[:200]


def _csv(text: str) -> Iterator[str]:
    worker = flask.current_app.extensions["worker"]
    place, left = 2**62, MAX_EXPORTED
    yield ",".join(COLUMNS) + "\r\n"
    while left > 0 and (notes := worker.control.notes(min(1000, left), text, place)):
        lines = io.StringIO()
        writer = csv.writer(lines)
        writer.writerows([cell(worker.mask(str(note[name] or ""))) for name in COLUMNS] for note in notes)
        yield lines.getvalue()
        place, left = notes[-1]["id"], left - len(notes)
