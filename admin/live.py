"""Pages that are polled every two seconds: an ETag from the data, and one rendering for identical requests.

It is a page's business to say what it shows besides moves of jobs, flags and audit (`marks`). Nothing here may write.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import flask

from admin.security import actor
from jobqueue import clock, glance
from jobqueue.control import STALE_S, closed

T = TypeVar("T")

#: How long what was read for one look is good for the next, in seconds: while a job runs the data changes four times a second,
#: and every open tab would cause a rendering. A page that is opened, or follows an action, is always fresh.
GOOD_S = 1.8
#: Renderings, and things read, that are kept for tabs that show the same page.
KEPT = 16


@dataclass(frozen=True, kw_only=True)
class Look:
    """What every page hangs on. said: what each program last said of itself."""

    version: glance.Version
    flags: dict[str, dict[str, Any]]
    said: dict[str, dict[str, Any]]


class Seen:
    """What was last read and rendered. One an application; its threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._look: Look | None = None
        self._looked = 0.0
        self._pages: OrderedDict[str, str] = OrderedDict()
        self._settled: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def look(self, read: Callable[[], Look], fresh: bool) -> Look:
        """The result of `read`, reread if it must be `fresh` or is older than GOOD_S."""
        with self._lock:
            known = self._look if time.monotonic() - self._looked < GOOD_S else None
        if known is None or fresh:
            known = read()
            with self._lock:
                self._look, self._looked = known, time.monotonic()
        return known

    def settled(self, name: str, mark: Any, read: Callable[[], T]) -> T:
        """The result of `read` for this mark, reread for another one."""
        with self._lock:
            known = self._settled.get(name)
        if known is None or known[0] != mark:
            known = (mark, read())
            with self._lock:
                self._settled[name] = known
                self._settled.move_to_end(name)
                while len(self._settled) > KEPT:
                    self._settled.popitem(last=False)
        return cast(T, known[1])

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
    """The page, or 304 if the one who asks has it. marks: what it shows besides moves of jobs, flags and audit."""
    worker, request = flask.current_app.extensions["worker"], flask.request
    # what the clock alone changes, such as what is counted since yesterday: so a new page every minute
    parts = (look().version.moves, head()["mode"], marks, clock.utc()[:16], request.full_path, actor(), worker.started)
    etag = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    response = flask.make_response(("", 304) if etag in request.if_none_match else worker.seen.page(etag, render))
    response.set_etag(etag)
    return response


def settled(name: str, read: Callable[[], T]) -> T:
    """The result of `read`, reread after a move or a minute: for counts over many jobs."""
    mark = (look().version.moves, clock.utc()[:16])
    return cast(T, flask.current_app.extensions["worker"].seen.settled(name, mark, read))


def look() -> Look:
    """What every page hangs on, once a request."""
    if "look" not in flask.g:
        worker = flask.current_app.extensions["worker"]

        def read() -> Look:
            version, flags = glance.version(worker.queue.database), worker.control.flags()
            return Look(version=version, flags=flags, said=worker.control.published())

        flask.g.look = worker.seen.look(read, fresh=not flask.request.if_none_match)
    return cast(Look, flask.g.look)


def head() -> dict[str, Any]:
    """What every page's head shows."""
    now = mode(look().flags, look().said)
    return {"worker": flask.current_app.extensions["worker"].id, "mode": now, "summary": now, "flags": look().flags}


def said() -> dict[str, dict[str, Any]]:
    """What each program last said of itself."""
    return look().said


def words_of(*programs: str) -> dict[str, dict[str, Any]]:
    """The same without when it was said: a mark for `live` that changes only with the words."""
    return {
        name: {key: said()[name][key] for key in said()[name] if key not in ("at", "age_s")}
        for name in programs
        if name in said()
    }


def mode(flags: dict[str, Any], said: dict[str, Any]) -> str:
    """One word for how the worker is, the worst first."""
    if flag := closed(flags):
        return flag
    inference = said.get("inference", {})
    if inference.get("age_s", STALE_S) >= STALE_S:
        return "stopped"
    return "active" if inference.get("model_loaded") else "starting"
