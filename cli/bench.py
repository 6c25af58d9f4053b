"""`worker bench`: what this machine does with this worker, measured with sample jobs that nobody is told of.

It only submits, waits and cancels what it submitted; `cli.figures` makes the figures.
"""

from __future__ import annotations

import secrets
import signal
import time
from typing import Any

import click

import answers
import supervision
from cli import figures, progress
from cli.answer import EXIT_FAILED, EXIT_NOT_YET, EXIT_REFUSED, Failure, Worker, open_worker, refusing, say, with_json
from jobqueue import clock, glance, intake
from jobqueue.control import STALE_S
from jobqueue.job import BEFORE_GPU, Job
from jobqueue.samples import Samples, card_of, samples_file
from operations import SAMPLE_WORDS

LOOK_EVERY_S = 0.25
#: How many of its jobs wait for the GPU at once: enough that it never waits for the next, few enough for the jobs of others.
MAX_WAITING = 4
#: What ends a state in which no job would start.
REMEDIES = {"paused": "worker resume ends it", "draining": "worker resume ends it", "unfit": "worker doctor says what to do"}


@click.command(epilog="Example: worker bench --jobs 10 --json > h200.json")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1, 500), help="How many sample jobs.")
@click.option(
    "--timeout",
    "timeout_s",
    default=1800,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Maximum time; then cancel the unfinished jobs and exit with 3.",
)
@with_json
def bench(jobs: int, timeout_s: float, as_json: bool) -> None:
    """Measure jobs per hour on this machine, where the time goes and what to change.

    Gives sample jobs to the running worker, as submit --sample does; they are reported to nobody. Ctrl-C cancels them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what it puts into the background with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    worker = open_worker()
    _check_flags(worker)
    said = _loaded(worker)
    began, token = clock.utc(), secrets.token_hex(3)
    ids = [f"bench-{token}-{number}" for number in range(1, jobs + 1)]
    if others := len(worker.operator.queue.unfinished()):
        click.echo(
            f"{others} other {'job is' if others == 1 else 'jobs are'} in the queue and will share the GPU with these", err=True
        )
    try:
        done = _run(worker, ids, timeout_s, as_json)
    except KeyboardInterrupt:
        raise Failure("stopped; the unfinished jobs are cancelled", EXIT_FAILED) from None
    finally:
        if left := [job.id for job in _known(worker, ids) if not job.finished]:
            worker.operator.cancel_all(left, "worker bench has ended")
    card = _card(worker, said["device"])
    run = _seen(worker, said, done, began, card)
    result = figures.of(run, _load(worker, figures.span(run), card))
    say(figures.table(result), result, as_json)


def _check_flags(worker: Worker) -> None:
    """Refuse where no job would start."""
    try:
        supervision.programs(worker.settings.run_dir)
    except supervision.NotRunning:
        data_dir = worker.settings.data_dir
        raise Failure(f"no worker is running in {data_dir}; start it with worker up, or set DATA_DIR", EXIT_FAILED) from None
    for name, flag in worker.operator.control.flags().items():
        if name in REMEDIES:
            raise Failure(f"the worker is {name} ({flag['reason'] or 'no reason given'}); {REMEDIES[name]}", EXIT_REFUSED)


def _loaded(worker: Worker) -> dict[str, Any]:
    """What inference says about its engine. Refuses if none is loaded."""
    said = worker.operator.control.published().get("inference", {})
    if said.get("age_s", STALE_S) >= STALE_S:
        raise Failure("no engine is loaded: inference is starting, or does not respond; see worker status", EXIT_REFUSED)
    if not said["model_loaded"]:
        raise Failure(f"no engine is loaded: {said['reason']}; worker status shows when one is", EXIT_REFUSED)
    return said


def _run(worker: Worker, ids: list[str], timeout_s: float, quiet: bool) -> list[Job]:
    """The jobs when all have succeeded. Raises Failure."""
    deadline = time.monotonic() + timeout_s
    with progress.shown(quiet) as show:
        while True:
            found = _known(worker, ids)
            for job in found:
                if job.state in ("failed", "cancelled"):
                    why = (job.error or {}).get("message") or job.cancel_reason
                    raise Failure(f"{job.id} {job.state}: {why}; see worker jobs {job.id}", EXIT_FAILED)
            waiting = sum(job.state in BEFORE_GPU for job in found)
            for job_id in ids[len(found) :][: MAX_WAITING - waiting]:
                _submit(worker, job_id)
            finished = sum(job.finished for job in found)
            show(int(20 * sum(job.progress for job in found) / len(ids)) / 20, f"{finished} of {len(ids)} jobs")
            if finished == len(ids):
                return found
            _check_flags(worker)
            if time.monotonic() > deadline:
                said = f"{finished} of {len(ids)} jobs were finished after {timeout_s:g} s"
                raise Failure(f"{said}; the others are cancelled; allow more with --timeout", EXIT_NOT_YET)
            time.sleep(LOOK_EVERY_S)


def _submit(worker: Worker, job_id: str) -> None:
    """The sample job of the engine that the worker was started with, which this shell's ENGINE need not be."""
    shape = intake.shape(answers.started(worker.settings).get("engine") or worker.settings.ENGINE)
    with refusing():
        worker.operator.sample(shape, worker.settings.data_dir, **fields(shape, job_id))


def fields(shape: str, job_id: str) -> dict[str, str]:
    """What makes a job its own: also its prompt if it has one, because an encoded prompt is cached."""
    return {"musetalk_job_id": job_id} | {name: f"{words} ({job_id})" for name, words in SAMPLE_WORDS[shape].items()}


def _known(worker: Worker, ids: list[str]) -> list[Job]:
    """Those of the jobs that were submitted, in that order."""
    return [job for job_id in ids if (job := worker.operator.queue.get(job_id)) is not None]


def _seen(worker: Worker, said: dict[str, Any], jobs: list[Job], began: str, card: dict[str, Any]) -> figures.Run:
    """What the queue knows of the jobs, and how many of others were on the GPU in that time."""
    database, ids = worker.operator.queue.database, [job.id for job in jobs]
    runs = [run for run in glance.runs(database, began) if run["until"] is None or run["until"] > began]
    return figures.Run(
        engine=said["engine"],
        device=said["device"],
        gpu=card.get("name"),
        store=worker.operator.control.published().get("uploader", {}).get("store"),
        note=said.get("note"),
        jobs=sorted(jobs, key=lambda job: job.started_at or ""),
        spent=glance.spent(database, ids),
        other_jobs=len({run["id"] for run in runs} - set(ids)),
        price_per_hour=worker.settings.PRICE_PER_HOUR,
    )


def _card(worker: Worker, device: str) -> dict[str, Any]:
    """The readings of the engine's card, which is the first; empty if it has none or the driver does not tell."""
    cards = worker.operator.control.published().get("poller", {}).get("gpus") or []
    return dict(cards[0]) if cards and device != "cpu" else {}


def _load(worker: Worker, span: tuple[float, float], card: dict[str, Any]) -> float | None:
    """The card's mean load in a span of wall time, 0 to 1; None if it is not known."""
    found = Samples(samples_file(worker.settings.data_dir)).extremes(*span) if card else {}
    load = found.get(card_of(card), {}).get("load_mean")
    return None if load is None else float(load) / 100
