"""The read-only commands: status, jobs, audit. They read the queue and ask supervisord; they work without a running worker."""

from __future__ import annotations

from typing import Any

import click

import answers
from cli.answer import Worker, not_found, open_worker, say, with_json
from jobqueue.control import STALE_S
from jobqueue.job import FINISHED, STAGES, Event, Job, Report

STATES = (*(state for stage in STAGES for state in (stage.waiting, stage.working)), *sorted(FINISHED))
#: The newest reports of a job that are shown; --json has all that are kept.
REPORTS = 10


@click.command()
@with_json
def status(as_json: bool) -> None:
    """Print one screen: whether it runs, what it does, what is wrong."""
    worker = open_worker()
    data = answers.status(worker.settings, worker.operator)
    say(_screen(data), data, as_json)


@click.command()
@click.argument("job_id", metavar="[JOB]", required=False)
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only jobs in this state; may be repeated.")
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number of lines.")
@with_json
def jobs(job_id: str | None, state: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the newest jobs, or show one job with its history and reports."""
    worker = open_worker()
    if job_id is not None:
        _one(worker, job_id, as_json)
        return
    found = worker.operator.queue.newest(state, limit=limit)
    say("\n".join(map(_line, found)) or "no jobs", [answers.summary(job) for job in found], as_json)


@click.command()
@click.argument("text", required=False, default="")
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number of lines.")
@with_json
def audit(text: str, limit: int, as_json: bool) -> None:
    """List the operators' actions, newest first; with TEXT, only those that contain it."""
    notes = open_worker().operator.control.notes(limit, text)
    words = [" ".join(str(note[name]) for name in ("at", "actor", "action", "target") if note[name]) for note in notes]
    whys = [f" ({note['reason']})" if note["reason"] else "" for note in notes]
    lines = [f"{word}{why}: {note['result']}" for word, why, note in zip(words, whys, notes, strict=True)]
    say("\n".join(lines) or "nothing", notes, as_json)


def _one(worker: Worker, job_id: str, as_json: bool) -> None:
    job = worker.operator.queue.get(job_id) or not_found(job_id)
    history, reports = worker.operator.outbox.history(job_id), worker.operator.outbox.reports(job_id)
    say(_detail(job, history, reports), answers.detail(job, history, reports), as_json)


def _line(job: Job) -> str:
    return _summary_line(answers.summary(job))


def _summary_line(job: dict[str, Any]) -> str:
    how = job["error"] or job["output_url"] or (f"{job['progress']:.0%} {job['phase'] or ''}" if not job["finished_at"] else "")
    return f"{job['id']:<32} {job['state']:<10} {job['created_at']}  {how}".rstrip()


def _detail(job: Job, history: list[Event], reports: list[Report]) -> str:
    summary = answers.summary(job) | {"round": job.round, "inputs": job.inputs, "params": job.params, "result": job.result}
    lines = [f"{name:<12} {value}" for name, value in summary.items() if value not in (None, {}, "")]
    if job.error:
        lines += [f"  {name:<10} {value}" for name, value in job.error.items() if name != "stack_trace" and value]
    lines.append("history")
    lines += [f"  {event.at}  {event.state:<10} {_event_words(event)}".rstrip() for event in history]
    if reports:
        lines.append("reports" + (f" (the newest {REPORTS} of {len(reports)})" if len(reports) > REPORTS else ""))
    lines += ["  " + _report_line(report) for report in reports[-REPORTS:]]
    return "\n".join(lines)


def _report_line(report: Report) -> str:
    progress = "" if report.progress is None else f" {report.progress:.0%}"
    said = f"{report.said}{progress} {report.phase or ''}".rstrip()
    return f"{report.at}  {report.place:<8} {said:<26} {report.status or '-':>3}  {report.took_ms:>6.0f} ms  {report.words}"


def _event_words(event: Event) -> str:
    words = [f"attempt {event.attempt}" if event.attempt > 1 else "", f"by {event.owner}" if event.owner else ""]
    if event.state in FINISHED:
        words.append(f"report: {event.answer or 'waits'}" if event.tries or event.sent_at else "report waits")
    return ", ".join(word for word in words if word)


def _screen(data: dict[str, Any]) -> str:
    page = f", page {data['page']}" if data["page"] else ""
    lines = [
        f"{data['worker_id']}  {_state(data)}  {data['mode']} mode, ENGINE={data['engine']}",
        f"http on port {data['http_port']}{page}",
    ]
    lines += [f"  {p['name']:<13} {p['state'].lower():<9} {_span(p['up_s'])}" for p in data["programs"]]
    lines += [line for program, said in sorted(data["said"].items()) for line in _said_lines(program, said)]
    counts = ", ".join(f"{count} {state}" for state, count in data["jobs"].items()) or "none"
    lines.append(f"jobs: {counts}; unsent reports: {data['waiting_reports']}")
    lines += ["  " + _summary_line(job) for job in (*data["unfinished"], *data["last"])]
    return "\n".join(lines)


def _state(data: dict[str, Any]) -> str:
    flags = "".join(f", {name} ({flag['reason'] or 'no reason given'})" for name, flag in data["flags"].items())
    return ("running" if data["running"] else "not running") + flags


def _said_lines(program: str, said: dict[str, Any]) -> list[str]:
    """A program's last status, one line per subject."""
    if said["age_s"] > STALE_S:
        return [f"{program} has not responded for {_span(said['age_s'])}"]
    if program == "inference":
        loaded = "loaded" if said.get("model_loaded") else f"not loaded: {said.get('reason')}"
        return [f"engine {said.get('engine')} on {said.get('device')}, {loaded}"]
    if program == "uploader":
        return [f"store {said.get('store')} " + ("ok" if said.get("ok") else f"down: {said.get('error')}")]
    lines = [_gpu_line(gpu) for gpu in said.get("gpus") or []]
    if link := said.get("orchestrator"):  # empty: none is set, or none has been asked yet
        lines.append("orchestrator " + (f"ok, {link.get('latency_ms')} ms" if link.get("ok") else f"down: {link.get('error')}"))
    return lines


def _gpu_line(gpu: dict[str, Any]) -> str:
    readings = {name: value for name, value in gpu.items() if value is not None and not isinstance(value, dict)}
    return "GPU " + ", ".join(f"{name} {value}" for name, value in readings.items())


def _span(seconds: float) -> str:
    """A span of time in its two largest units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{int(seconds)} s"
