"""The commands that change something: each is one action of `operations.Operator`, with its audit row."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import click

from cli.answer import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, Failure, Worker, not_found, open_worker, say, with_json
from jobqueue import intake
from jobqueue.job import Job

#: How often a command that waits looks again, in seconds.
LOOK_EVERY_S = 0.25

reason_option = click.option("--reason", default="", help="Why; it is shown on the page and kept in the audit trail.")


@click.command()
@reason_option
@with_json
def pause(reason: str, as_json: bool) -> None:
    """Claim and start nothing new; what runs is finished, uploads and reports go on."""
    changed = open_worker().operator.pause(reason)
    say("paused" if changed else "it was paused already", {"paused": True, "changed": changed}, as_json)


@click.command()
@with_json
def resume(as_json: bool) -> None:
    """End a pause or a drain."""
    changed = open_worker().operator.resume()
    say("resumed" if changed else "it was neither paused nor draining", {"paused": False, "changed": changed}, as_json)


@click.command()
@reason_option
@with_json
def drain(reason: str, as_json: bool) -> None:
    """Claim nothing new; when all jobs are done and reported the worker ends with code 0."""
    changed = open_worker().operator.drain(reason)
    say("draining" if changed else "it was draining already", {"draining": True, "changed": changed}, as_json)


@click.command()
@click.argument("job_id", metavar="JOB")
@with_json
def retry(job_id: str, as_json: bool) -> None:
    """Begin a failed or cancelled job anew."""
    worker = open_worker()
    job = worker.operator.retry(job_id)
    if job is None:
        found = worker.operator.queue.get(job_id) or not_found(job_id)
        raise Failure(f"{job_id}: is {found.state}; only failed and cancelled jobs can be retried", EXIT_REFUSED)
    say(f"{job.id} begins anew, round {job.round}", {"job": job.id, "state": job.state, "round": job.round}, as_json)


@click.command()
@click.argument("job_id", metavar="JOB")
@reason_option
@with_json
def cancel(job_id: str, reason: str, as_json: bool) -> None:
    """Ask for a job to end."""
    worker = open_worker()
    if not worker.operator.cancel(job_id, reason or "cancelled by the operator"):
        found = worker.operator.queue.get(job_id) or not_found(job_id)
        raise Failure(f"{job_id}: is {found.state} already", EXIT_REFUSED)
    found = worker.operator.queue.get(job_id) or not_found(job_id)
    word = "is cancelled" if found.state == "cancelled" else "will be cancelled within a second"
    say(f"{job_id} {word}", {"job": job_id, "state": found.state}, as_json)


@click.command()
@click.argument("video", required=False)
@click.argument("audio", required=False)
@click.option("--image", help="fastwan: the picture to begin with.")
@click.option("--prompt", help="fastwan: what shall happen.")
@click.option("--param", "fields", multiple=True, metavar="NAME=VALUE", help="Another field of the job; may be repeated.")
@click.option("--wait", is_flag=True, help="Return when the job is over; 1 if it failed.")
@with_json
def submit(
    video: str | None,
    audio: str | None,
    image: str | None,
    prompt: str | None,
    fields: tuple[str, ...],
    wait: bool,
    as_json: bool,
) -> None:
    """Add a job of one's own, from files or links. Prints its id."""
    worker = open_worker()
    payload: dict[str, Any] = {"video_url": video, "audio_url": audio, "image_url": image, "prompt": prompt}
    payload = {name: value for name, value in payload.items() if value is not None} | dict(map(_field, fields))
    try:
        job = worker.operator.submit(payload, intake.shape(worker.settings.ENGINE), worker.settings.data_dir)
    except ValueError as error:
        raise Failure(str(error), EXIT_USAGE) from None
    except PermissionError as error:  # in a container the commands act as WORKER_USER, who may not read all that root may
        raise Failure(f"{error.filename}: user {os.getuid()} may not read it", EXIT_USAGE) from None
    if wait:
        job = _wait(worker, job)
    output = job.result.get("output_url")
    text = f"{job.id} {job.state}" + (f" {output}" if output else "") if wait else job.id
    say(text, {"job": job.id, "state": job.state, "output_url": output, "error": job.error}, as_json)
    if job.state in ("failed", "cancelled"):
        raise Failure((job.error or {}).get("message", job.cancel_reason or job.state), EXIT_FAILED)


def _field(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is JSON is taken as such, so that 42 is a number."""
    name, found, value = text.partition("=")
    if not found:
        raise Failure(f"--param {text}: must look like NAME=VALUE", EXIT_USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _wait(worker: Worker, job: Job) -> Job:
    while not job.finished:
        time.sleep(LOOK_EVERY_S)
        job = worker.operator.queue.get(job.id) or not_found(job.id)
    return job
