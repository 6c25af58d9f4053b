"""What an operator does from the pages: each form is one method of `operations.Operator`, and leads back to where it was."""

from __future__ import annotations

import flask

from admin.security import actor
from operations import Operator

pages = flask.Blueprint("actions", __name__)

#: The longest reason that is kept, in characters.
LONGEST_REASON = 500


def operator() -> Operator:
    """Who acts through this log-in."""
    worker = flask.current_app.extensions["worker"]
    return Operator(actor=actor(), queue=worker.queue, control=worker.control, outbox=worker.outbox)


@pages.post("/pause")
def pause() -> flask.typing.ResponseReturnValue:
    operator().pause(_reason())
    return flask.redirect(flask.url_for("overview.page"), 303)


@pages.post("/resume")
def resume() -> flask.typing.ResponseReturnValue:
    operator().resume()
    return flask.redirect(flask.url_for("overview.page"), 303)


@pages.post("/jobs/<path:job_id>/cancel")
def cancel(job_id: str) -> flask.typing.ResponseReturnValue:
    reason = _reason()
    operator().cancel(_known(job_id), reason)
    return flask.redirect(flask.url_for("jobs.detail", job_id=job_id), 303)


@pages.post("/jobs/<path:job_id>/retry")
def retry(job_id: str) -> flask.typing.ResponseReturnValue:
    operator().retry(_known(job_id))
    return flask.redirect(flask.url_for("jobs.detail", job_id=job_id), 303)


def _reason() -> str:
    reason = flask.request.form.get("reason", "").strip()[:LONGEST_REASON]
    if not reason:
        flask.abort(400, "a reason is needed")
    return reason


def _known(job_id: str) -> str:
    if flask.current_app.extensions["worker"].queue.get(job_id) is None:
        flask.abort(404)
    return job_id
