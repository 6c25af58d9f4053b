"""What an operator does from the pages: each form is one method of `operations.Operator`, and leads back to where it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import flask

import supervision
from admin import jobs
from admin.security import LARGE, actor, local_path
from jobqueue import intake, listing
from jobqueue.job import FINISHED, STAGES, WAITING, WORKING, Job
from jobqueue.listing import Line
from operations import MAX_AT_ONCE, Operator

pages = flask.Blueprint("actions", __name__)

#: The longest reason that is kept, in characters.
MAX_REASON = 500
#: The states that an action on many jobs is of use in.
USEFUL = {"retry": ("failed", "cancelled"), "cancel": tuple(sorted(WAITING | WORKING)), "delete": tuple(sorted(FINISHED))}
#: What such an action is called before "3 jobs".
CALLED = {"retry": "Retry", "cancel": "Cancel", "delete": "Delete the files of"}
#: Job ids that a page of many names before it only counts.
NAMED = 20
#: 500 ids of the longest kind.
LARGE["actions.act_on_many"] = lambda worker: 512 * 1024


def operator() -> Operator:
    """Who acts through this log-in."""
    worker = flask.current_app.extensions["worker"]
    return Operator(actor=actor(), queue=worker.queue, control=worker.control, outbox=worker.outbox)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What an operation refuses becomes an answer in its words."""
    try:
        yield
    except ValueError as error:
        flask.abort(400, str(error))
    except supervision.NotRunning as error:
        flask.abort(503, f"supervisord does not answer ({error}); the programs may still be running")


@pages.app_context_processor
def going() -> dict[str, Any]:
    """For the banner of a pause or a drain: what still goes on, counted when the banner is there."""

    def count() -> dict[str, int]:
        worker = flask.current_app.extensions["worker"]
        counts = worker.queue.counts()
        found = {stage.name: counts.get(stage.working, 0) for stage in STAGES}
        held = sum(counts.get(stage.waiting, 0) for stage in STAGES[:2])
        return {**found, "held": held, "to_upload": counts.get("generated", 0), "reports": worker.outbox.waiting()}

    return {"going": count}


@pages.post("/pause")
def pause() -> flask.typing.ResponseReturnValue:
    with refusing():
        operator().pause(reason(), _minutes_s())
    return _back()


@pages.post("/drain")
def drain() -> flask.typing.ResponseReturnValue:
    with refusing():
        operator().drain(reason(), _minutes_s())
    return _back()


@pages.post("/resume")
def resume() -> flask.typing.ResponseReturnValue:
    operator().resume()
    return _back()


@pages.post("/sample")
def sample() -> flask.typing.ResponseReturnValue:
    settings = flask.current_app.extensions["worker"].settings
    with refusing():
        job = operator().sample(intake.shape(settings.ENGINE), settings.data_dir)
    return _to_job(job.id)


@pages.post("/jobs/<path:job_id>/cancel")
def cancel(job_id: str) -> flask.typing.ResponseReturnValue:
    why = reason()
    operator().cancel(jobs.known(job_id).id, why)
    return _to_job(job_id)


@pages.post("/jobs/<path:job_id>/retry")
def retry(job_id: str) -> flask.typing.ResponseReturnValue:
    operator().retry(jobs.known(job_id).id)
    return _to_job(job_id)


@pages.post("/jobs/<path:job_id>/test")
def run_as_test(job_id: str) -> flask.typing.ResponseReturnValue:
    with refusing():
        job = operator().again(jobs.known(job_id), flask.current_app.extensions["worker"].settings.data_dir)
    return _to_job(job.id)


@pages.post("/jobs/<path:job_id>/delete-files")
def delete_files(job_id: str) -> flask.typing.ResponseReturnValue:
    why = reason()
    operator().discard_all([jobs.known(job_id).id], why)
    return _to_job(job_id)


@pages.post("/jobs/many")
def ask_about_many() -> str:
    """Which of the chosen jobs, or of all that the filters match, an action would touch; it is asked for on that page."""
    action, form = _action(), flask.request.form
    found: Sequence[Job | Line] = _matching(USEFUL[action]) if form.get("all") else _chosen(USEFUL[action])
    return flask.render_template(
        "many.html",
        action=action,
        called=CALLED[action],
        jobs=found[:MAX_AT_ONCE],
        cut=len(found) > MAX_AT_ONCE,
        named=NAMED,
        back=form.get("list", ""),
    )


@pages.post("/jobs/many/do")
def act_on_many() -> flask.typing.ResponseReturnValue:
    action, ids = _action(), [unquote(job_id) for job_id in flask.request.form.getlist("job")]
    done = do_to_many(action, ids, _said() if action == "retry" else reason())
    return flask.render_template("done.html", action=action, asked=len(ids), done=len(done))


def do_to_many(action: str, ids: list[str], why: str) -> list[str]:
    """One of the actions of USEFUL; the ids of the jobs that it changed, or will. why: may be empty for a retry."""
    acting = operator()
    with refusing():
        if action == "retry":
            return acting.retry_all(ids, why or None)
        return (acting.cancel_all if action == "cancel" else acting.discard_all)(ids, why)


def reason() -> str:
    """Why, as the form says. An answer of 400 if it says nothing."""
    if not (said := _said()):
        flask.abort(400, "a reason is required")
    return said


def _said() -> str:
    return flask.request.form.get("reason", "").strip()[:MAX_REASON]


def _minutes_s() -> float | None:
    """The form's minutes in seconds; None if it names none."""
    said = flask.request.form.get("minutes", "").strip()
    try:
        return float(said) * 60 if said else None
    except ValueError:
        flask.abort(400, f"minutes: got {said[:40]!r}; must be a number, like 30")


def _action() -> str:
    action = flask.request.form.get("action", "")
    if action not in USEFUL:
        flask.abort(400, f"action: must be one of {', '.join(USEFUL)}")
    return action


def _chosen(states: tuple[str, ...]) -> list[Job]:
    queue = flask.current_app.extensions["worker"].queue
    found = [queue.get(unquote(job_id)) for job_id in flask.request.form.getlist("job")[: MAX_AT_ONCE + 1]]
    return [job for job in found if job is not None and job.state in states]


def _matching(states: tuple[str, ...]) -> list[Line]:
    """One more than may be acted on, to know that there are more."""
    asked = jobs.wanted(flask.request.form)
    states = tuple(state for state in states if not asked.states or state in asked.states)
    asked = replace(asked, states=states, sort="newest", after=None)
    return listing.lines(flask.current_app.extensions["worker"].queue.database, asked, MAX_AT_ONCE + 1) if states else []


def _to_job(job_id: str) -> flask.typing.ResponseReturnValue:
    return flask.redirect(f"/jobs/{quote(job_id)}", 303)


def _back() -> flask.typing.ResponseReturnValue:
    """To the page whose form it was."""
    parts = urlsplit(flask.request.referrer or "")
    here = local_path(parts.path + (f"?{parts.query}" if parts.query else "")) if parts.netloc == flask.request.host else "/"
    return flask.redirect(here, 303)
