"""The doctor page: everything that jobs need, each with a result and what to do. It only requests examinations.

Opening the page starts an examination; an open page only polls for newer results. The fixes of `worker doctor --fix` can be
applied from here.
"""

from __future__ import annotations

from typing import Any

import flask

from admin.actions import operator
from admin.live import live
from doctor import mend

pages = flask.Blueprint("doctor", __name__)

#: How long what was found is good for the next who asks, in seconds.
FRESH_S = 10.0
#: How long a page waits for an examination, and a program; it usually takes two seconds.
WAIT_S, MAX_WAIT_S = 8.0, 50.0
#: The worst first, as they are counted at the top.
LEVELS = ("fail", "warn", "ok")


@pages.get("/doctor")
def page() -> flask.Response:
    seen = bool(flask.request.if_none_match)
    now = flask.current_app.extensions["worker"].doctor.last() if seen else found(FRESH_S, WAIT_S)
    return live(lambda: _page(now), now and now["at"])


@pages.post("/doctor/fix")
def fix() -> str:
    """What came of each repair; there may be none left to do."""
    worker, who = flask.current_app.extensions["worker"], operator()
    done = [mend.carry_out(repair, worker.control, who.actor) for repair in mend.repairs(worker.settings)]
    return flask.render_template("fixed.html", done=done)


def found(good_s: float, wait_s: float) -> dict[str, Any] | None:
    """What the newest examination found, as `worker doctor --json` says it; None if it is not done in time."""
    answer: dict[str, Any] | None = flask.current_app.extensions["worker"].doctor.found(good_s, wait_s)
    return answer


def _page(now: dict[str, Any] | None) -> str:
    checks = now["checks"] if now else []
    counts = {level: sum(check["level"] == level for check in checks) for level in LEVELS}
    can_fix = any(check["do"].startswith(mend.COMMAND) for check in checks)
    return flask.render_template("doctor.html", now=now, counts=counts, can_fix=can_fix)
