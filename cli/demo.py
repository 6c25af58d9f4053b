"""`worker demo`: a whole system on this machine, from the orchestrator to the finished video, without keys or weights."""

from __future__ import annotations

import contextlib
import http.server
import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from cli import checks
from cli.answer import EXIT_FAILED, Failure, load_settings, say
from cli.up import CHECKOUT, command, environment
from service import die_with_parent
from settings import Settings

SAMPLES = CHECKOUT / "samples"
VIDEO, AUDIO = "face.mp4", "speech.wav"
#: How long the orchestrator may take to start, how long the job may take, and how long the programs may take to end: seconds.
START_S, JOB_S, STOP_S = 60.0, 900.0, 60.0
LOOK_EVERY_S = 0.3

Job = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The running system, seen from outside."""

    settings: Settings
    first: subprocess.Popen[bytes]
    orchestrator: str
    console: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Job:
        """One request to the orchestrator, as a customer makes it."""
        key = {"X-Internal-API-Key": self.settings.INTERNAL_API_KEY or "", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.orchestrator + path, data, key)  # noqa: S310 - our own loopback address
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return dict(json.load(answer))

    def check_alive(self) -> None:
        code = self.first.poll()
        if code is not None:
            with self.console.open(errors="replace") as lines:
                last = "".join(deque(lines, maxlen=8)).strip()
            raise Failure(f"the worker ended with code {code}:\n{last}", EXIT_FAILED)


@click.command()
@click.option("--once", is_flag=True, help="End after the video, leaving no process behind.")
@click.option("--data", default="data/demo", show_default=True, type=click.Path(file_okay=False), help="The demo's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result in JSON; progress goes to standard error.")
def demo(once: bool, data: str, as_json: bool) -> None:
    """Start everything on this machine, run the sample job, and stay up until Ctrl-C."""
    for name in (VIDEO, AUDIO):
        if not (SAMPLES / name).is_file():
            raise Failure(f"{SAMPLES / name}: is missing from the checkout", EXIT_FAILED)
    signal.signal(signal.SIGTERM, _interrupt)
    finished = False
    try:
        with _samples_served() as samples, _running(data) as running:
            click.echo(_introduction(running.settings), err=True)
            result = _result(running, _finished(running, _submitted(running, samples), as_json))
            say(_words(result), result, as_json)
            if result["state"] != "succeeded":
                raise Failure(f"the sample job {result['state']}: {result['error']}", EXIT_FAILED)
            finished = True
            if not once:
                click.echo("it stays up until Ctrl-C", err=True)
                _stay(running)
    except KeyboardInterrupt:
        if not finished:
            raise Failure("stopped before the video was finished", EXIT_FAILED) from None


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _environment(data: str) -> dict[str, str | None]:
    """The demo's settings; what the user's environment says about a real fleet and its store is set aside."""
    admin_port = 8080 if _is_free(8080) else _free_port()
    asked = load_settings(ORCHESTRATOR_BASE_URL="http://127.0.0.1:1")
    aside = ("B2_KEY_ID", "B2_APP_KEY", "B2_BUCKET_NAME", "BUFFER_WORKER_ID", "WORKER_TYPE", "WORKER_USER", "KILL_AT")
    orchestrator_port = _free_port()
    changes: dict[str, str | None] = dict.fromkeys(aside)
    return changes | {
        "DATA_DIR": str(Path(data).absolute()),
        "ENGINE": _engine(asked),
        "WORKER_MODE": "main",
        "PROVIDER": "local",
        "ORCHESTRATOR_BASE_URL": f"http://127.0.0.1:{orchestrator_port}",
        "INTERNAL_API_KEY": secrets.token_urlsafe(24),
        "ALLOW_PRIVATE_URLS": "1",
        "POLL_INTERVAL_SEC": "1",
        "HEARTBEAT_INTERVAL_SEC": "2",
        "HTTP_PORT": str(_free_port()),
        "ADMIN_ENABLED": "1",
        "ADMIN_HOST": "127.0.0.1",
        "ADMIN_PORT": str(admin_port),
        "ADMIN_PASSWORD": asked.ADMIN_PASSWORD or secrets.token_urlsafe(12),
        "WORKER_ORCHESTRATOR": "true",
        "WORKER_ORCHESTRATOR_PORT": str(orchestrator_port),
    }


def _engine(asked: Settings) -> str:
    """An engine of the user's own, or MuseTalk if its UNet is there, as it is published or converted, or preview."""
    if "." in asked.ENGINE:
        return asked.ENGINE
    there = any((asked.models_dir / "musetalkV15" / name).is_file() for name in ("unet.pth", "unet.safetensors"))
    return "musetalk" if there else "preview"


@contextlib.contextmanager
def _running(data: str) -> Iterator[Demo]:
    """All programs under supervisord, as a child of this process; none is left at the end."""
    changes = _environment(data)
    settings = load_settings(**changes)
    checks.make_ready(settings)
    console = settings.data_dir / "logs" / "console.out"
    console.parent.mkdir(exist_ok=True)
    with console.open("wb") as out:
        first = subprocess.Popen(
            command(settings),
            env=environment(settings, **changes),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield Demo(settings=settings, first=first, orchestrator=settings.orchestrator_url or "", console=console)
    finally:
        first.terminate()
        try:
            first.wait(STOP_S)
        except subprocess.TimeoutExpired:
            first.kill()
            first.wait()


@contextlib.contextmanager
def _samples_served() -> Iterator[str]:
    """The samples at a loopback address, as a customer's links would be."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(SAMPLES))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _submitted(running: Demo, samples: str) -> str:
    """Hand the sample job to the orchestrator as soon as it answers; returns its id."""
    body = {"engine": "musetalk", "video_url": f"{samples}/{VIDEO}", "audio_url": f"{samples}/{AUDIO}"}

    def submit() -> Job | None:
        running.check_alive()
        try:
            return running.ask("/jobs", body)
        except urllib.error.HTTPError as error:
            raise Failure(f"the orchestrator refused the job: {error.read().decode(errors='replace')}", EXIT_FAILED) from None
        except OSError:
            return None  # it does not listen yet

    return str(_until(submit, START_S, "the orchestrator did not start")["musetalk_job_id"])


def _finished(running: Demo, job_id: str, quiet: bool) -> Job:
    """The job when it is over; its progress is shown meanwhile."""
    with _progress_shown(quiet) as show:

        def look() -> Job | None:
            running.check_alive()
            try:
                job = running.ask(f"/jobs/{job_id}")
            except OSError:
                return None  # the orchestrator is being started anew
            show(float(job["progress"] or 0), str(job["phase"] or job["state"]))
            return job if job["state"] in ("succeeded", "failed", "cancelled") else None

        return _until(look, JOB_S, f"the sample job was not finished in {JOB_S:.0f} s")


@contextlib.contextmanager
def _progress_shown(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal, else a line for each step."""
    stream = sys.stderr
    if stream.isatty() and not quiet:
        with click.progressbar(length=100, file=stream, show_eta=False, item_show_func=_phase) as bar:
            yield lambda fraction, phase: bar.update(max(0, round(fraction * 100) - bar.pos), phase)
        return
    shown = ""

    def line(fraction: float, phase: str) -> None:
        nonlocal shown
        words = f"{fraction:4.0%}  {phase}"
        if words != shown:
            shown = words
            click.echo(words, err=True)

    yield line


def _phase(phase: Any) -> str:
    return phase or ""


def _result(running: Demo, job: Job) -> dict[str, Any]:
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
    """The page's address; what is behind the # logs in and reaches no server's log."""
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


def _stay(running: Demo) -> NoReturn:
    while True:
        running.check_alive()
        time.sleep(LOOK_EVERY_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
