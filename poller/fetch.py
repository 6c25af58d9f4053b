"""Stage 1: downloads a job's inputs to its folder, and checks that they really are media.

A file has its final name only when it is complete, so downloads of previous runs are reused.
Untrusted bytes are decoded in a separate process: if it crashes, only the job fails.
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from errors import Cancelled, EngineFailed, InvalidInput, Unavailable, Unreachable
from jobqueue import faults, intake, spool
from jobqueue.job import FETCH, Job
from jobqueue.queue import Queue
from jobqueue.worker import Progress, work
from operations import incoming
from poller.download import Downloaded, download
from poller.identity import News
from poller.partial import disk
from poller.transfer import Limits

log = logging.getLogger(__name__)

#: What each input must be, in the probe's terms.
_KINDS = {"video_url": "video", "audio_url": "audio", "image_url": "image"}
#: How long a probe may take, in seconds: decoding both ends of a file takes a few.
PROBE_TIMEOUT_S = 120.0
#: Signals by which somebody stops a probe; all others are caused by the file.
ENDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Downloads smaller than this say nothing about the network speed.
_LEAST_MEASURED_BYTES = 256 * 1024
_PROGRESS = 0.05
#: How often the job is checked during the downloads, in seconds; a cancellation takes effect well within one.
TICK_S = 0.2
#: Where `python -m media.probe` is found.
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Limits on inputs. timeout_s: how long this stage may take for one job, including retries."""

    data_dir: Path
    limits: Limits
    max_duration_s: float
    timeout_s: float


def loop(queue: Queue, inputs: Inputs, news: News, owner: str) -> Callable[[threading.Event], None]:
    """A loop that fetches one job after another as `owner`."""

    def run(stop: threading.Event) -> None:
        work(FETCH, lambda job, progress: fetch(job, progress, inputs, news), queue, owner, stop, timeout_s=inputs.timeout_s)

    return run


def fetch(job: Job, progress: Progress, inputs: Inputs, news: News) -> dict[str, Any]:
    """Download and check every input of one job. Returns what to add to its result. Raises JobError, Cancelled."""
    faults.point("fetch.before_download")
    folder = spool.folder(inputs.data_dir, job.id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the job's folder could not be created: {(error.strerror or str(error)).lower()}") from error
    began = time.monotonic()
    brought, probed = _at_once(job, progress, inputs, news)
    times = {"download": round(brought - began, 3), "validation": round(time.monotonic() - brought, 3)}
    faults.point("fetch.before_commit")
    return {"stage_times": times, "inputs_probed": probed}


def _at_once(job: Job, progress: Progress, inputs: Inputs, news: News) -> tuple[float, dict[str, Any]]:
    """Download and check the inputs in parallel: over a slow network they take as long as the longest. Returns when the last
    one arrived, and what each of them is. An error of one aborts the others."""
    over = threading.Event()

    def go_on() -> None:
        if over.is_set():
            raise Cancelled("another input of the job failed")

    def one(field: str) -> tuple[float, dict[str, Any]]:
        _bring(job, field, go_on, inputs, news)
        faults.point("fetch.after_rename")
        return time.monotonic(), _probed(job, field, go_on, inputs)

    fields = intake.LINKS[job.engine]
    if lacking := [field for field in fields if not job.inputs.get(field)]:  # rejected on arrival, and retried by hand
        raise InvalidInput(f"{lacking[0]}: {intake.NO_LINK}", stage="validation")
    with ThreadPoolExecutor(len(fields), thread_name_prefix="input") as pool:
        try:
            # each with its own context, so that its log lines name this job
            found = {field: pool.submit(contextvars.copy_context().run, one, field) for field in fields}
            while (left := wait(found.values(), TICK_S, FIRST_EXCEPTION)).not_done and not any(map(_failed, left.done)):
                progress("downloading", _PROGRESS)
        finally:  # whatever ends this, even a thread that cannot be started, ends the running ones
            over.set()
    errors = [error for each in found.values() if (error := each.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
    brought = [each.result()[0] for each in found.values()]
    return max(brought), {field: each.result()[1] for field, each in found.items()}


def _failed(one: Future[Any]) -> bool:
    return one.exception() is not None


# ---- fetching ---------------------------------------------------------------------------------------------------------------


def _bring(job: Job, field: str, go_on: Callable[[], None], inputs: Inputs, news: News) -> None:
    url, target = job.inputs[field], spool.input_file(inputs.data_dir, job.id, field)
    with disk():
        if _is_here(target, url):
            return  # downloaded by an earlier run, attempt or round
    if url.startswith("file:"):
        _take_over(job, field, url, target, inputs.data_dir)
        return
    try:
        got = download(url, target, inputs.limits, field=field, go_on=go_on)
    except Unreachable as error:
        if news.orchestrator.get("ok", True):
            raise
        # other hosts are unreachable too: it is this machine's network, which will come back
        raise Unavailable(error.message, stage=error.stage, **error.details) from error
    _measure(got, news)
    log.info("fetched %s, %d bytes in %.1f s", field, got.size_bytes, got.seconds)


def _is_here(target: Path, url: str) -> bool:
    """Whether the file is here already; one from a different link of an earlier round is deleted."""
    origin, link = target.with_name(f"{target.name}.from"), hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()
    if origin.exists() and origin.read_text() != link:
        target.unlink(missing_ok=True)
    if target.exists():
        return True
    origin.write_text(link)
    return False


def _take_over(job: Job, field: str, url: str, target: Path, data_dir: Path) -> None:
    """A file that an operator submitted: only from the folder where such files wait."""
    allowed = incoming(data_dir).resolve()
    source = Path(unquote(urlsplit(url).path)).resolve()
    if job.source != "local" or not source.is_relative_to(allowed):
        raise InvalidInput(f"{field}: must be an http:// or https:// link", stage="download")
    if not source.is_file():
        raise InvalidInput(f"{field}: the file that was handed in is no longer there; submit it again", stage="download")
    written = target.with_name(target.name + ".part")
    try:
        written.unlink(missing_ok=True)
        try:
            os.link(source, written)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, written)
        spool.keep(written, target)
    except OSError as error:
        raise Unavailable(f"{field}: could not be kept on disk: {(error.strerror or str(error)).lower()}") from error


def _measure(got: Downloaded, news: News) -> None:
    """Keep a moving average of the speed of downloads."""
    if got.received_bytes < _LEAST_MEASURED_BYTES:
        return
    before = news.download_speed_mbps
    news.download_speed_mbps = got.speed_mbps if before is None else 0.7 * before + 0.3 * got.speed_mbps


# ---- checking ---------------------------------------------------------------------------------------------------------------


def _probed(job: Job, field: str, go_on: Callable[[], None], inputs: Inputs) -> dict[str, Any]:
    """What the file is. Raises InvalidInput if it is not what the field needs, or crashes the decoder."""
    target = spool.input_file(inputs.data_dir, job.id, field)
    command = [sys.executable, "-m", "media.probe", "--as", _KINDS[field], "--max-duration", f"{inputs.max_duration_s:g}"]
    found = run_probe([*command, str(target)], go_on)
    if found is None:
        target.unlink(missing_ok=True)
        raise InvalidInput(f"{field}: the file could not be read: it crashed the decoder", stage="validation")
    if not found.get("ok"):
        target.unlink(missing_ok=True)
        details = {name: value for name, value in (found.get("details") or {}).items() if name not in ("message", "stage")}
        raise InvalidInput(f"{field}: {found.get('error') or 'is not media'}", stage="validation", **details)
    return {name: value for name, value in found.items() if name != "ok"}


def run_probe(command: list[str], tick: Callable[[], None], timeout_s: float = PROBE_TIMEOUT_S) -> dict[str, Any] | None:
    """The JSON that a probe prints; None if it died, took too long, or printed something else. `tick` may raise.

    Raises Unavailable if none can be started, EngineFailed if somebody ended it."""
    with _started(command) as probe:
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    printed, complaint = probe.communicate(timeout=0.25)
                    break
                except subprocess.TimeoutExpired:
                    tick()
                    if time.monotonic() > deadline:
                        log.warning("the probe took longer than %.0f s", timeout_s)
                        return None
        finally:
            probe.kill()
    if -probe.returncode in ENDED:
        raise EngineFailed(f"the probe was killed by signal {-probe.returncode}", stage="validation")
    try:
        found = json.loads(printed)
    except ValueError:
        log.warning("the probe exited with %d: %s", probe.returncode, complaint.decode(errors="replace")[-500:])
        return None
    return found if isinstance(found, dict) else None


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:  # in its own session: a signal that stops all programs is not the file's fault
        return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:  # out of processes, file handles or memory
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"the probe could not be started on this machine: {reason}", stage="validation") from error
