"""The Settings page: what the worker was started with, what it is made of, who is logged in. It changes no setting."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flask

from admin import shown
from admin.actions import operator
from admin.live import live, said, words_of
from answers import page_url
from jobqueue.database import library_version
from settings import VERSION
from weights import manifest

pages = flask.Blueprint("config", __name__)

#: What says most about an installation, by the name of its distribution.
TELLING = ("torch", "av", "opencv-python-headless", "diffusers", "transformers", "b2sdk", "flask", "gunicorn", "supervisor")
CHECKOUT = Path(__file__).resolve().parent.parent


@pages.app_template_global()
def utc(seconds: float) -> str:
    """Wall seconds as UTC text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@pages.get("/settings")
def page() -> flask.Response:
    return live(_page, words_of("inference", "poller"), _sessions())


@pages.post("/settings/sign-out")
def sign_out() -> flask.typing.ResponseReturnValue:
    operator().sign_out_all()
    return flask.redirect("/login", 303)


@pages.post("/settings/login-link")
def login_link() -> str:
    """A new one-time link, shown this once."""
    worker = flask.current_app.extensions["worker"]
    link = operator().login_link(page_url(worker.settings))
    return flask.render_template(
        "link.html", link=link, here=flask.request.host_url.rstrip("/") + "/login#" + link.split("#")[1]
    )


def versions(settings: Any, said_: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What the worker is made of."""
    card: dict[str, Any] = next(iter(said_.get("poller", {}).get("gpus") or []), {})
    found = {
        "worker": VERSION,
        "commit": _commit(CHECKOUT / ".git"),
        "engine": said_.get("inference", {}).get("engine"),
        "GPU driver": card.get("driver"),
        "Python": platform.python_version(),
        "SQLite": library_version(),
        "kernel": platform.release(),
        **{name: _installed(name) for name in TELLING},
        "weights": _weights(settings),
    }
    return {name: str(value) for name, value in found.items() if value}


def _page() -> str:
    worker = flask.current_app.extensions["worker"]
    since, changes = shown.changes(worker.queue.database)
    return flask.render_template(
        "settings.html",
        settings=shown.all_of(worker.settings),
        since=since,
        changes=changes,
        versions=versions(worker.settings, said()),
        sessions=_sessions(),
    )


def _sessions() -> list[dict[str, Any]]:
    """Who is logged in, without the hashes; `here`: this very log-in."""
    worker = flask.current_app.extensions["worker"]
    mine = worker.access.hashed(flask.g.session, flask.g.role) if flask.g.session else ""
    rows = worker.control.sessions()
    return [{**{name: row[name] for name in row if name != "hash"}, "here": row["hash"] == mine} for row in rows]


def _weights(settings: Any) -> str:
    files = [file for file in manifest.ENGINES.get(settings.ENGINE, ()) if not file.optional]
    there = [file for file in files if (settings.models_dir / file.path).is_file()]
    return f"{len(there)} of {len(files)} files are there" if files else ""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of a checkout; an image has none."""
    try:
        head = (folder / "HEAD").read_text().strip()
        return (folder / head.removeprefix("ref: ")).read_text().strip()[:12] if head.startswith("ref: ") else head[:12]
    except OSError:
        return None
