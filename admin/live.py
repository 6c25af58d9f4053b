"""A page that can be looked at every two seconds: an ETag made from the data, and one rendering for all who ask the same.

It is a page's business to say what it shows besides the queue (`marks`). Nothing here may write.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import flask

from admin.security import actor
from jobqueue import clock, glance

#: How long what was read for one look is good for the next, in seconds: while a job runs the data changes four times a second,
#: and every open tab would have the page rendered anew. A page that is opened, or follows an action, is always fresh.
GOOD_S = 1.0
#: How old a program's last word may be before it is taken for silent, in seconds.
STALE_S = 30.0
#: Renderings kept, for tabs that show the same page.
KEPT = 16


class Seen:
    """What was last read and rendered. One an application; its threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = ("", -GOOD_S)
        self._pages: OrderedDict[str, str] = OrderedDict()

    def version(self, read: Callable[[], str], fresh: bool) -> str:
        """The mark of the data, read anew if it must be `fresh` or is older than GOOD_S."""
        with self._lock:
            known, at = self._version
        if fresh or time.monotonic() - at >= GOOD_S:
            known = read()
            with self._lock:
                self._version = (known, time.monotonic())
        return known

    def page(self, etag: str, render: Callable[[], str]) -> str:
        """The page of that mark, rendered if it is not at hand."""
        with self._lock:
            if (page := self._pages.get(etag)) is not None:
                return page
        page = render()
        with self._lock:
            self._pages[etag] = page
            while len(self._pages) > KEPT:
                self._pages.popitem(last=False)
        return page


def live(render: Callable[[], str], *marks: Any) -> flask.Response:
    """The page, or 304 if the one who asks has it. marks: what it shows besides jobs, flags and audit."""
    worker, request = flask.current_app.extensions["worker"], flask.request
    version = worker.seen.version(lambda: glance.version(worker.queue.database), fresh=not request.if_none_match)
    # what the clock alone changes, such as what is counted since yesterday: so a new page every minute
    parts = (version, head()["mode"], marks, clock.utc()[:16], request.full_path, actor(), worker.started)
    etag = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    response = flask.make_response(("", 304) if etag in request.if_none_match else worker.seen.page(etag, render))
    response.set_etag(etag)
    return response


def head() -> dict[str, Any]:
    """What every page's head shows, read once a request."""
    if "head" not in flask.g:
        worker = flask.current_app.extensions["worker"]
        flags, said = worker.control.flags(), worker.control.published()
        now = mode(flags, said)
        share = glance.running(worker.queue.database)
        summary = f"{share:.0%}" if share is not None and now == "active" else now
        flask.g.said, flask.g.head = (
            said,
            {"worker": worker.settings.worker_id, "mode": now, "summary": summary, "flags": flags},
        )
    found: dict[str, Any] = flask.g.head
    return found


def said() -> dict[str, dict[str, Any]]:
    """What each program last said of itself, read once a request."""
    head()
    found: dict[str, dict[str, Any]] = flask.g.said
    return found


def words_of(*programs: str) -> dict[str, dict[str, Any]]:
    """The same without when it was said: a mark for `live` that changes only with the words."""
    return {
        name: {key: said()[name][key] for key in said()[name] if key not in ("at", "age_s")}
        for name in programs
        if name in said()
    }


def mode(flags: dict[str, Any], said: dict[str, Any]) -> str:
    """One word for how the worker is, the worst first."""
    for flag, word in (("unfit", "unfit"), ("draining", "draining"), ("paused", "paused")):
        if flag in flags:
            return word
    inference = said.get("inference", {})
    if inference.get("age_s", STALE_S) >= STALE_S:
        return "stopped"
    return "active" if inference.get("model_loaded") else "starting"
