"""The list of jobs, as a page and as a file, and where a job's own page and files are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import flask

from admin import detail, files, words
from admin.live import live, look, settled
from jobqueue import clock, listing
from jobqueue.job import WORKING, Job
from jobqueue.listing import Line, Wanted
from support.log_files import Mask
from support.text import cell, plain

pages = flask.Blueprint("jobs", __name__)

GROUPS = {
    "all": (),
    "open": ("claimed", "fetching", "ready", "generating", "generated", "uploading"),
    "done": ("succeeded",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}
KINDS = ("musetalk", "fastwan")
#: By name in the address: in words, and seconds.
TIMES = {"1h": ("the last hour", 3600), "24h": ("the last 24 hours", 24 * 3600), "7d": ("the last 7 days", 7 * 24 * 3600)}
#: What the filters offer: value and words.
CHOICES = {
    "kind": [("", "all"), *((kind, kind) for kind in KINDS)],
    "when": [("", "at any time"), *((name, f"in {text}") for name, (text, _) in TIMES.items())],
    "sort": [(name, f"the {name}") for name in listing.SORTS],
}
PAGE = 25
#: Lines that a file has at the most.
MAX_EXPORTED = 50_000
EXPORTED = (
    *("id", "state", "engine", "source", "round", "created_at", "started_at", "finished_at"),
    *("took_s", "gpu_s", "size_bytes", "message"),
)


@pages.get("/jobs")
def index() -> flask.Response:
    asked = wanted(flask.request.args)
    shows_work = asked.sort == "newest" and (not asked.states or any(state in WORKING for state in asked.states))
    return live(_list, look().version.progress if shows_work else None)


@pages.get("/export/jobs.<kind>")
def export(kind: str) -> flask.typing.ResponseReturnValue:
    """All that the filters match, as CSV or JSON, sent while it is read."""
    if kind not in ("csv", "json"):
        flask.abort(404)
    worker, asked = flask.current_app.extensions["worker"], wanted(flask.request.args)
    found = (_row(line, worker.mask) for line in listing.all_lines(worker.queue.database, asked, MAX_EXPORTED))
    mimetype = "text/csv; charset=utf-8" if kind == "csv" else "application/json"
    response = flask.Response(
        flask.stream_with_context(_as_csv(found) if kind == "csv" else _as_json(found)), content_type=mimetype
    )
    response.headers["Content-Disposition"] = f'attachment; filename="jobs.{kind}"'
    return response


@pages.get("/jobs/<path:job_id>", endpoint="detail")
def show(job_id: str) -> flask.Response:
    job = known(job_id)
    return live(lambda: flask.render_template("job.html", **detail.seen(job)), detail.marks(job))


@pages.get("/jobs/<path:job_id>/files/<kind>")
def file(job_id: str, kind: str) -> flask.Response:
    data_dir, whole = flask.current_app.extensions["worker"].settings.data_dir, "download" in flask.request.args
    return files.send(data_dir, known(job_id), kind, whole)


def known(job_id: str) -> Job:
    """The job; an answer of 404 if there is none."""
    job: Job | None = flask.current_app.extensions["worker"].queue.get(job_id)
    if job is None:
        flask.abort(404, f"No job {job_id[:80]} on this worker. It may have run on another worker, or have been deleted.")
    return job


def wanted(args: Mapping[str, str]) -> Wanted:
    """Which jobs an address or a form asks for: state, kind, when, q, sort, after. What is odd counts as absent."""
    kind, when, sort = args.get("kind", ""), args.get("when", ""), args.get("sort", "newest")
    return Wanted(
        states=GROUPS.get(args.get("state", "all"), ()),
        engine=kind if kind in KINDS else "",
        text=args.get("q", "")[:200],
        since=clock.utc(-TIMES[when][1]) if when in TIMES else "",
        sort=sort if sort in listing.SORTS else "newest",
        after=_place(args.get("after", "")),
    )


def _list() -> str:
    args = flask.request.args
    asked, queue = wanted(args), flask.current_app.extensions["worker"].queue
    found, counts = listing.lines(queue.database, asked, PAGE + 1), settled("counts", queue.counts)
    totals = {name: sum(counts.get(state, 0) for state in states or counts) for name, states in GROUPS.items()}
    filters = {name: args[name][:200] for name in ("state", "kind", "when", "q", "sort") if args.get(name)}
    last, data_dir = found[PAGE - 1] if len(found) > PAGE else None, flask.current_app.extensions["worker"].settings.data_dir
    return flask.render_template(
        "jobs.html",
        jobs=found[:PAGE],
        frames={line.id: files.frame(data_dir, line) for line in found[:PAGE]},
        older=None if last is None else _address(filters, after=f"{last.key!r},{last.number}"),
        asked=asked,
        group=args.get("state", "all") if args.get("state") in GROUPS else "all",
        filters=filters,
        filtered=any(filters.get(name) for name in ("kind", "when", "q")) or asked.states,
        address=_address,
        totals=totals,
        times=TIMES,
        choices=CHOICES,
    )


def _address(filters: Mapping[str, str], path: str = "/jobs", **changes: str) -> str:
    """The list with these filters; a filter that is empty is left out."""
    query = urlencode({name: value for name, value in {**filters, **changes}.items() if value})
    return f"{path}?{query}" if query else path


def _place(text: str) -> tuple[float, int] | None:
    key, _, number = text.partition(",")
    try:
        return (min(max(float(key), -(2.0**62)), 2.0**62), min(max(int(number[:20]), 0), 2**62))
    except ValueError:
        return None


def _row(line: Line, mask: Mask) -> dict[str, object]:
    took = {"took_s": (line.created_at, line.finished_at), "gpu_s": (line.started_at, line.finished_at)}
    spans = {name: round(words.seconds(start, end), 1) if start and end else None for name, (start, end) in took.items()}
    message = plain(mask(line.message or line.cancel_reason or "")) or None
    whole: dict[str, object] = {**vars(line), **spans, "message": message}
    return {name: whole[name] for name in EXPORTED}


def _as_csv(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.DictWriter(text, EXPORTED)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) if isinstance(value, str) else value for name, value in row.items()})
        if text.tell() > 32_000:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _as_json(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    yield "["
    for place, row in enumerate(rows):
        yield (",\n" if place else "\n") + json.dumps(row)
    yield "\n]\n"
