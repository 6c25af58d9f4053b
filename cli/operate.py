"""The commands that change something: each is one action of `operations.Operator`, with its audit row."""

from __future__ import annotations

import json
import math
import os
import re
import time
from typing import Any, ClassVar

import click

import answers
import supervision
from cli.answer import (
    EXIT_FAILED,
    EXIT_NOT_YET,
    EXIT_REFUSED,
    EXIT_USAGE,
    Failure,
    Worker,
    not_found,
    open_worker,
    refusing,
    say,
    with_json,
)
from jobqueue import intake
from jobqueue.job import Job
from operations import RESTARTABLE

#: How often a command that waits looks again, in seconds.
LOOK_EVERY_S = 0.25


class Span(click.ParamType[float]):
    """A span of time, in seconds."""

    name = "time"
    units: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
        if not parts or "".join(f"{number}{unit}" for number, unit in parts) != value:
            self.fail(f"{value}: must be a time like 90s, 30m, 1h or 1h30m", param, ctx)
        return sum(float(number) * self.units[unit] for number, unit in parts)


SPAN = Span()

reason_option = click.option("--reason", default="", help="The reason, shown on the page and kept in the audit trail.")


@click.command()
@reason_option
@click.option("--for", "for_s", type=SPAN, metavar="TIME", help="Resume automatically after 90s, 30m, 1h, 1h30m, 2d …")
@with_json
def pause(reason: str, for_s: float | None, as_json: bool) -> None:
    """Stop claiming and starting jobs; running jobs finish, uploads and reports continue."""
    with refusing():
        changed = open_worker().operator.pause(reason, for_s)
    say("paused" if changed else "already paused", {"paused": True, "changed": changed}, as_json)


@click.command()
@with_json
def resume(as_json: bool) -> None:
    """End a pause or a drain."""
    changed = open_worker().operator.resume()
    say("resumed" if changed else "neither paused nor draining", {"paused": False, "changed": changed}, as_json)


@click.command()
@reason_option
@click.option("--deadline", "deadline_s", type=SPAN, metavar="TIME", help="Exit after 10m, 1h … even if jobs are left.")
@with_json
def drain(reason: str, deadline_s: float | None, as_json: bool) -> None:
    """Stop claiming jobs; when all jobs are done and reported, the worker exits with 0."""
    with refusing():
        changed = open_worker().operator.drain(reason, deadline_s)
    say("draining" if changed else "already draining", {"draining": True, "changed": changed}, as_json)


@click.command()
@click.argument("program", type=click.Choice(RESTARTABLE))
@reason_option
@click.option("--after-job/--now", "after_job", default=True, show_default=True, help="Wait for its current job, or not.")
@with_json
def restart(program: str, reason: str, after_job: bool, as_json: bool) -> None:
    """Restart a program. With --now, its current job starts over."""
    worker = open_worker()
    busy = bool(worker.operator.busy(program)) and after_job
    try:
        changed = worker.operator.restart(program, worker.settings.run_dir, reason, after_job)
    except supervision.NotRunning as error:
        raise Failure(f"the worker is not running: {error}", EXIT_FAILED) from None
    text = f"restarting {program}" + (" after its job" if busy else "")
    say(text if changed else "already requested", {"program": program, "after_job": busy, "changed": changed}, as_json)


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@with_json
def retry(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Retry failed or cancelled jobs."""
    worker = open_worker()
    if len(job_ids) > 1:
        with refusing():
            done = worker.operator.retry_all(list(job_ids))
        say(f"{len(done)} of {len(job_ids)} jobs will be retried", {"asked": len(job_ids), "done": done}, as_json)
        return
    job = worker.operator.retry(job_ids[0])
    if job is None:
        found = worker.operator.queue.get(job_ids[0]) or not_found(job_ids[0])
        raise Failure(f"{found.id}: is {found.state}; only failed and cancelled jobs can be retried", EXIT_REFUSED)
    say(f"{job.id} will be retried, round {job.round}", {"job": job.id, "state": job.state, "round": job.round}, as_json)


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@reason_option
@with_json
def cancel(job_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Cancel jobs."""
    worker, reason = open_worker(), reason or "cancelled by the operator"
    if len(job_ids) > 1:
        with refusing():
            done = worker.operator.cancel_all(list(job_ids), reason)
        say(f"{len(done)} of {len(job_ids)} jobs cancelled", {"asked": len(job_ids), "done": done}, as_json)
        return
    cancelled = worker.operator.cancel(job_ids[0], reason)
    found = worker.operator.queue.get(job_ids[0]) or not_found(job_ids[0])
    if not cancelled:
        raise Failure(f"{found.id}: is {found.state} already", EXIT_REFUSED)
    word = "is cancelled" if found.state == "cancelled" else "will be cancelled within a second"
    say(f"{found.id} {word}", {"job": found.id, "state": found.state}, as_json)


@click.command("delete-files")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@reason_option
@with_json
def delete_files(job_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Permanently delete the files of finished jobs from this machine; the jobs stay in the list."""
    with refusing():
        done = open_worker().operator.discard_all(list(job_ids), reason or "deleted by the operator")
    if not done:
        raise Failure("none of these jobs has ended", EXIT_REFUSED)
    text = f"the files of {len(done)} of {len(job_ids)} jobs will be deleted within seconds"
    say(text, {"asked": len(job_ids), "done": done}, as_json)


@click.command()
@click.argument("video", required=False)
@click.argument("audio", required=False)
@click.option("--image", help="fastwan: the first frame.")
@click.option("--prompt", help="fastwan: the prompt.")
@click.option("--param", "fields", multiple=True, metavar="NAME=VALUE", help="Another field of the job; may be repeated.")
@click.option("--sample", is_flag=True, help="Submit the sample job, which tests the whole pipeline.")
@click.option("--like", metavar="JOB", help="Reuse the inputs and parameters of that job; nothing is reported.")
@click.option("--wait", is_flag=True, help="Wait until the job ends; exit with 1 if it failed.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0), metavar="SECONDS", help="Maximum time to --wait; then exit with 3."
)
@with_json
def submit(
    video: str | None,
    audio: str | None,
    image: str | None,
    prompt: str | None,
    fields: tuple[str, ...],
    sample: bool,
    like: str | None,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Submit a local job with files or links. Prints its id."""
    if timeout_s is not None and not wait:
        raise Failure("--timeout: needs --wait", EXIT_USAGE)
    worker = open_worker()
    payload: dict[str, Any] = {"video_url": video, "audio_url": audio, "image_url": image, "prompt": prompt}
    payload = {name: value for name, value in payload.items() if value is not None} | dict(map(_field, fields))
    if (sample or like) and (payload or (sample and like)):
        raise Failure("--sample and --like: cannot be combined with each other, or with files, links or fields", EXIT_USAGE)
    engine, data_dir = intake.shape(worker.settings.ENGINE), worker.settings.data_dir
    try:
        with refusing():
            if like:
                job = worker.operator.again(worker.operator.queue.get(like) or not_found(like), data_dir)
            else:
                job = worker.operator.sample(engine, data_dir) if sample else worker.operator.submit(payload, engine, data_dir)
    except PermissionError as error:  # in a container the commands act as WORKER_USER, who may not read all that root may
        raise Failure(f"{error.filename}: cannot be read by user {os.getuid()}", EXIT_USAGE) from None
    if wait:
        job = _wait(worker, job, timeout_s)
    output = job.result.get("output_url")
    text = f"{job.id} {job.state}" + (f" {output}" if output else "") if wait else job.id
    say(text, {"job": job.id, "state": job.state, "output_url": output, "error": job.error}, as_json)
    if job.state in ("failed", "cancelled"):
        raise Failure((job.error or {}).get("message", job.cancel_reason or job.state), EXIT_FAILED)
    if wait and not job.finished:
        raise Failure(
            f"{job.id}: is {job.state} after {timeout_s:g} s and stays in the queue; see worker jobs {job.id}",
            EXIT_NOT_YET,
        )


@click.command("login-url")
@with_json
def login_url(as_json: bool) -> None:
    """Print a link that logs in to the admin page once, within 15 minutes."""
    worker = open_worker()
    page = answers.status(worker.settings, worker.operator)["page"] or answers.page_url(worker.settings)
    link = worker.operator.login_link(page)
    say(link, {"login_url": link}, as_json)


def _field(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is valid JSON is parsed, so that 42 is a number."""
    name, found, value = text.partition("=")
    if not found:
        raise Failure(f"--param {text}: must look like NAME=VALUE", EXIT_USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _wait(worker: Worker, job: Job, timeout_s: float | None) -> Job:
    """The job when it has ended, or as it is when the time is up."""
    try:
        supervision.programs(worker.settings.run_dir)
    except supervision.NotRunning:
        click.echo(f"{job.id}: no worker is running; the job waits for worker up", err=True)
    deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
    while not job.finished and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(LOOK_EVERY_S, left_s))
        job = worker.operator.queue.get(job.id) or not_found(job.id)
    return job
