"""`worker demo`: a whole system on this machine, from the orchestrator to the finished video, without keys or weights."""

from __future__ import annotations

import signal
import time
import urllib.error
from collections.abc import Callable
from typing import Any, NoReturn

import click

from cli import progress, system
from cli.answer import EXIT_FAILED, Failure, say
from cli.system import Job
from operations import SAMPLE, SAMPLES
from settings import Settings

#: How long the orchestrator may take to start and how long the job may take, in seconds.
START_S, JOB_S = 60.0, 900.0
LOOK_EVERY_S = 0.3


@click.command()
@click.option("--once", is_flag=True, help="Exit after the video, leaving no process behind.")
@click.option("--data", type=click.Path(file_okay=False), help="The demo's folder.  [default: demo in DATA_DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress goes to standard error.")
def demo(once: bool, data: str | None, as_json: bool) -> None:
    """Start everything on this machine, run the sample job, and keep running until Ctrl-C."""
    for name in SAMPLE["musetalk"].values():
        if not (SAMPLES / name).is_file():
            raise Failure(f"{SAMPLES / name}: is missing from the checkout", EXIT_FAILED)
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what it puts into the background with SIGINT ignored
        signal.signal(number, _interrupt)
    finished = False
    try:
        with system.served(SAMPLES) as samples, system.running(data) as running:
            click.echo(_introduction(running.settings), err=True)
            result = _result(running, _finished(running, _submitted(running, samples), as_json))
            say(_words(result), result, as_json)
            if result["state"] != "succeeded":
                raise Failure(f"the sample job {result['state']}: {result['error']}", EXIT_FAILED)
            finished = True
            if not once:
                click.echo("running; stop with Ctrl-C", err=True)
                _stay(running)
    except KeyboardInterrupt:
        if not finished:
            raise Failure("stopped before the video was finished", EXIT_FAILED) from None


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _submitted(running: system.Demo, samples: str) -> str:
    """Submit the sample job to the orchestrator as soon as it answers; returns its id."""
    body = {"engine": "musetalk"} | {field: f"{samples}/{name}" for field, name in SAMPLE["musetalk"].items()}

    def submit() -> Job | None:
        running.check_alive()
        try:
            return running.ask("/jobs", body)
        except urllib.error.HTTPError as error:
            raise Failure(f"the orchestrator rejected the job: {error.read().decode(errors='replace')}", EXIT_FAILED) from None
        except OSError:
            return None  # it does not listen yet

    return str(_until(submit, START_S, "the orchestrator did not start")["musetalk_job_id"])


def _finished(running: system.Demo, job_id: str, quiet: bool) -> Job:
    """The job when it is over; its progress is shown meanwhile."""
    with progress.shown(quiet) as show:

        def look() -> Job | None:
            running.check_alive()
            try:
                job = running.ask(f"/jobs/{job_id}")
            except OSError:
                return None  # the orchestrator is restarting
            show(float(job["progress"] or 0), str(job["phase"] or job["state"]))
            return job if job["state"] in ("succeeded", "failed", "cancelled") else None

        return _until(look, JOB_S, f"the sample job did not finish within {JOB_S:.0f} s")


def _result(running: system.Demo, job: Job) -> dict[str, Any]:
    outputs = running.settings.data_dir / "outputs"
    videos = sorted(outputs.rglob(f"{job['musetalk_job_id']}.mp4"))
    return {
        "job": job["musetalk_job_id"],
        "state": job["state"],
        "video": str(videos[0]) if videos else None,
        "output_url": job["output_url"],
        "error": job["error"],
        "engine": (job["metrics"] or {}).get("engine"),
        "admin_url": _admin_url(running.settings),
        "api_url": f"http://127.0.0.1:{running.settings.HTTP_PORT}/",
        "orchestrator_url": running.orchestrator,
    }


def _admin_url(settings: Settings) -> str:
    """The page's address; the part after the # logs in, and never reaches a server's log."""
    return f"http://127.0.0.1:{settings.ADMIN_PORT}/login#code={settings.ADMIN_PASSWORD}"


def _introduction(settings: Settings) -> str:
    engine = {
        "musetalk": f"MuseTalk, with the weights in {settings.models_dir}",
        "preview": f"preview: no weights in {settings.models_dir}, so the mouth only follows the loudness of the speech",
    }.get(settings.ENGINE, settings.ENGINE)
    return f"engine: {engine}\nfolder: {settings.data_dir}"


def _words(result: dict[str, Any]) -> str:
    return f"video: {result['video']}\nadmin: {result['admin_url']}"


def _until(attempt: Callable[[], Job | None], limit_s: float, late: str) -> Job:
    deadline = time.monotonic() + limit_s
    while (found := attempt()) is None:
        if time.monotonic() > deadline:
            raise Failure(late, EXIT_FAILED)
        time.sleep(LOOK_EVERY_S)
    return found


def _stay(running: system.Demo) -> NoReturn:
    while True:
        running.check_alive()
        time.sleep(LOOK_EVERY_S)
