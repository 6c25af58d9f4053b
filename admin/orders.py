"""The JSON API's actions: the operations of the pages and of the command line, with the same audit rows.

An action with nothing to do is answered with 200 and "changed": false, so that it can be sent twice.
"""

from __future__ import annotations

import json
from typing import Any

import flask

import answers
from admin import security, shown
from admin.actions import MAX_REASON, USEFUL, do_to_many, operator, refusing
from admin.api import answer, known
from jobqueue import intake

pages = flask.Blueprint("orders", __name__, url_prefix="/api/v1")

security.LARGE["orders.many"] = lambda worker: 512 * 1024


@pages.post("/pause")
def pause() -> flask.Response:
    """{"reason", "minutes"?}. changed: false if it was paused already."""
    body = _body()
    with refusing():
        changed = operator().pause(_reason(body), _minutes_s(body, "minutes"))
    return answer({"changed": changed, "paused": operator().control.flag("paused")})


@pages.post("/resume")
def resume() -> flask.Response:
    return answer({"changed": operator().resume()})


@pages.post("/drain")
def drain() -> flask.Response:
    """{"reason", "deadline"? (minutes)}"""
    body = _body()
    with refusing():
        changed = operator().drain(_reason(body), _minutes_s(body, "deadline"))
    return answer({"changed": changed, "draining": operator().control.flag("draining")})


@pages.post("/jobs/<path:job_id>/cancel")
def cancel(job_id: str) -> flask.Response:
    changed = operator().cancel(known(job_id).id, _reason(_body()))
    return answer({"changed": changed, "job": answers.summary(known(job_id))})


@pages.post("/jobs/<path:job_id>/retry")
def retry(job_id: str) -> flask.Response:
    changed = operator().retry(known(job_id).id) is not None
    return answer({"changed": changed, "job": answers.summary(known(job_id))})


@pages.post("/jobs/<path:job_id>/test")
def run_as_test(job_id: str) -> flask.Response:
    """The same inputs again as a job of one's own, of which nobody else is told."""
    with refusing():
        new = operator().again(known(job_id), flask.current_app.extensions["worker"].settings.data_dir)
    return answer({"changed": True, "job": answers.summary(new)}, 201)


@pages.post("/jobs/<path:job_id>/delete-files")
def delete_files(job_id: str) -> flask.Response:
    """{"reason"}: what this machine holds of a job that is over is removed within seconds."""
    done = operator().discard_all([known(job_id).id], _reason(_body()))
    return answer({"changed": bool(done), "job": answers.summary(known(job_id))})


@pages.post("/jobs/bulk")
def many() -> flask.Response:
    """{"action": "cancel", "retry" or "delete" (their files), "jobs": [ids, at most 500], "reason"?}"""
    body = _body()
    ids, action = body.get("jobs"), body.get("action")
    if not isinstance(ids, list) or not all(isinstance(job_id, str) for job_id in ids) or action not in USEFUL:
        flask.abort(400, f'must be like {{"action": "retry", "jobs": ["job-1"]}}; action: {", ".join(USEFUL)}')
    done = do_to_many(str(action), ids, _reason(body, needed=action != "retry"))
    return answer({"changed": bool(done), "asked": len(ids), "done": done})


@pages.post("/jobs")
def submit() -> flask.Response:
    """A job of one's own, from links; the fields are those of /generate."""
    worker, body = flask.current_app.extensions["worker"], _body()
    with refusing():
        new = operator().submit(shown.only_links(body), intake.shape(worker.settings.ENGINE), worker.settings.data_dir)
    return answer({"changed": True, "job": answers.summary(new)}, 201)


@pages.post("/test-job")
def test_job() -> flask.Response:
    settings = flask.current_app.extensions["worker"].settings
    with refusing():
        new = operator().sample(intake.shape(settings.ENGINE), settings.data_dir)
    return answer({"changed": True, "job": answers.summary(new)}, 201)


@pages.post("/processes/<name>/restart")
def restart(name: str) -> flask.Response:
    """{"reason", "when": "after" (its job, the default) or "now"}"""
    body, worker = _body(), flask.current_app.extensions["worker"]
    when = body.get("when", "after")
    if when not in ("after", "now"):
        flask.abort(400, "when: must be after or now")
    with refusing():
        changed = operator().restart(name, worker.settings.run_dir, _reason(body), after_job=when == "after")
    return answer({"changed": changed, "program": name})


def _body() -> dict[str, Any]:
    try:
        found = json.loads(flask.request.get_data() or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        flask.abort(400, "the body must be a JSON object, like {}")
    return found


def _reason(body: dict[str, Any], needed: bool = True) -> str:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or (needed and not reason.strip()):
        flask.abort(400, "reason: is missing; must be a text")
    return reason.strip()[:MAX_REASON]


def _minutes_s(body: dict[str, Any], name: str) -> float | None:
    minutes = body.get(name)
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        flask.abort(400, f"{name}: must be a number of minutes, like 30")
    return float(minutes) * 60
