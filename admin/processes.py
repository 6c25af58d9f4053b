"""The programs as supervisord sees them, their logs, and their restart; the page's own server and supervisord stay alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flask
import psutil

import supervision
from admin import logs
from admin.actions import operator, reason, refusing
from admin.live import live
from jobqueue import clock
from support import log_files

pages = flask.Blueprint("processes", __name__)

#: What may be restarted from here; the page cannot restart its own server, or it could not say what came of it.
RESTARTABLE = ("poller", "inference", "uploader", "api")
#: What each is for, in a few words.
DUTIES = {
    "poller": "claims, downloads, reports, heartbeats",
    "inference": "renders the videos",
    "uploader": "stores the videos",
    "api": "/generate, probes, metrics",
    "admin": "this page; cannot be restarted here",
    "guard": "monitors the others; cannot be restarted here",
    "orchestrator": "the demo's orchestrator",
}
#: From which level on lines are shown, by name in the address.
LEVELS = {"all": (), "warnings": ("warning", "error", "critical"), "errors": ("error", "critical")}


@pages.get("/processes")
def page() -> flask.Response:
    found, why_not = programs()
    chosen = flask.request.args.get("log", "inference")
    marks = [(program.name, program.state, program.pid, program.why) for program in found]
    return live(lambda: _page(found, why_not, chosen), marks, why_not, log_files.names(_folder()))


@pages.post("/processes/<name>/restart")
def restart(name: str) -> flask.typing.ResponseReturnValue:
    if name not in RESTARTABLE:
        flask.abort(400, f"{name[:40]} cannot be restarted here; there are {', '.join(RESTARTABLE)}")
    settings = flask.current_app.extensions["worker"].settings
    with refusing():
        operator().restart(name, settings.run_dir, reason(), after_job=flask.request.form.get("when") == "after")
    return flask.redirect("/processes", 303)


@pages.get("/processes/log/<name>")
def more(name: str) -> dict[str, Any]:
    """What has been said since the place `after`, for the script that follows a log."""
    piece = _piece(name, flask.request.args.get("after", ""))
    if piece is None:
        flask.abort(404)
    return {"lines": [vars(line) for line in _fitting(piece.lines)], "after": piece.after, "cut": piece.cut}


@pages.get("/processes/log/<name>/download")
def download(name: str) -> flask.typing.ResponseReturnValue:
    folder, mask = _folder(), flask.current_app.extensions["worker"].mask
    if name not in log_files.names(folder):
        flask.abort(404)
    response = flask.Response(log_files.whole(folder, name, mask), mimetype="text/plain")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.log.txt"'
    return response


def programs() -> tuple[list[supervision.Program], str | None]:
    """What supervisord says, and why it says nothing."""
    try:
        return supervision.programs(flask.current_app.extensions["worker"].settings.run_dir), None
    except supervision.NotRunning as error:
        return [], str(error)


def memory_bytes(pid: int | None) -> int | None:
    """What a process holds of the machine's memory; None if it is gone."""
    try:
        return None if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _page(found: list[supervision.Program], why_not: str | None, chosen: str) -> str:
    acting, names = operator(), log_files.names(_folder())
    piece = _piece(chosen, "")
    rows = [
        {
            "program": program,
            "since": clock.utc(-program.up_s),
            "memory_bytes": memory_bytes(program.pid),
            "busy": acting.busy(program.name),
            "duty": DUTIES.get(program.name, ""),
            "restartable": program.name in RESTARTABLE,
        }
        for program in found
    ]
    return flask.render_template(
        "processes.html",
        rows=rows,
        why_not=why_not,
        restarts=acting.control.restarts(),
        names=names,
        chosen=chosen if chosen in names else None,
        piece=piece,
        lines=_fitting(piece.lines) if piece else [],
        levels=LEVELS,
        level=_level(),
        q=flask.request.args.get("q", "")[:200],
    )


def _piece(name: str, after: str) -> logs.Piece | None:
    return logs.read(_folder(), name, after, flask.current_app.extensions["worker"].mask)


def _fitting(lines: list[log_files.Line]) -> list[log_files.Line]:
    levels, text = LEVELS[_level()], flask.request.args.get("q", "")[:200].lower()
    return [line for line in lines if (not levels or line.level in levels) and text in log_files.as_text(line).lower()]


def _level() -> str:
    level = flask.request.args.get("level", "all")
    return level if level in LEVELS else "all"


def _folder() -> Path:
    folder: Path = flask.current_app.extensions["worker"].settings.data_dir / "logs"
    return folder
