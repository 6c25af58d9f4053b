"""`python -m poller`: fetches work and reports on it; the only process that talks to the orchestrator."""

from __future__ import annotations

import sys

from jobqueue import intake
from jobqueue.control import Control
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.samples import samples_file
from poller import fetch, sample
from poller.ask import Ask
from poller.claim import Claiming, Rhythm
from poller.heartbeat import Heartbeat
from poller.identity import Identity, News
from poller.janitor import GB, Janitor
from poller.look import Look
from poller.orchestrator import Orchestrator
from poller.report import Reporting
from poller.transfer import Limits
from service import Loop, Service, is_finishing, recovering, run, start
from settings import VERSION, Settings

FETCH_THREADS = 2


def main() -> int:
    """Run the poller until SIGTERM. Returns the exit code."""
    service = start("poller")
    queue, control, outbox = service.open_queue()
    first, lasting = loops(service, queue, control, outbox)
    return run(service, first, queue.bell.ring, lasting, lambda: is_finishing(queue, service.settings.run_dir))


def loops(service: Service, queue: Queue, control: Control, outbox: Outbox) -> tuple[dict[str, Loop], dict[str, Loop]]:
    """The loops for these settings, by name: those that bring in work, and those that report on it until the end."""
    settings, news, identity = service.settings, News(), identity_of(service.settings)
    look = Look(queue, control, identity, news, settings.HEARTBEAT_INTERVAL_SEC)
    reporting = Reporting(queue, outbox, _orchestrator(settings), identity, news)
    keep_s = settings.KEEP_DAYS * 86400.0
    lasting: dict[str, Loop] = {"look": look.loop, "report": reporting.loop}
    found: dict[str, Loop] = {
        "telemetry": sample.loop(samples_file(settings.data_dir), settings.GPUS),
        "recover": recovering(service, queue),
        "janitor": Janitor(queue, outbox, settings.data_dir, settings.DATA_LIMIT_GB * GB, keep_s).loop,
    }
    for number in range(1, FETCH_THREADS + 1):
        found[f"fetch {number}"] = fetch.loop(queue, _inputs(settings), news, f"{service.owner}.{number}")
    # Each loop has its own client: a hanging call does not affect the others.
    heartbeat, claims = _orchestrator(settings), _orchestrator(settings)
    if heartbeat is not None:
        found["ask"] = Ask(queue, control, reporting).loop
        lasting["heartbeat"] = Heartbeat(queue, heartbeat, look, identity, news, settings.HEARTBEAT_INTERVAL_SEC).loop
    if claims is not None and settings.mode != "queue":
        found["claim"] = Claiming(queue, control, claims, identity, _rhythm(settings), news).loop
    return found, lasting


def identity_of(settings: Settings) -> Identity:
    """Our identity according to these settings."""
    return Identity(
        worker_id=settings.worker_id,
        worker_type=settings.WORKER_TYPE or "main",
        mode=settings.mode,
        provider=settings.provider,
        engine=settings.ENGINE,
        shape=intake.shape(settings.ENGINE),
        version=VERSION,
        data_dir=settings.data_dir,
        gpus=settings.GPUS,
        gpu_class=settings.GPU_CLASS_NAME,
        capacity=settings.BUFFER_CAPACITY,
        config_label=settings.CONFIG_LABEL,
        batch_size=int(settings.BATCH_SIZE) if settings.BATCH_SIZE.isdigit() else None,
    )


def _orchestrator(settings: Settings) -> Orchestrator | None:
    url = settings.orchestrator_url
    return None if url is None else Orchestrator(url, settings.INTERNAL_API_KEY)


def _inputs(settings: Settings) -> fetch.Inputs:
    limits = Limits(
        max_bytes=int(settings.MAX_INPUT_MB * 1e6),
        tries=settings.DOWNLOAD_RETRIES,
        total_s=settings.JOB_TIMEOUT_SEC,
        allow_private=settings.ALLOW_PRIVATE_URLS,
    )
    return fetch.Inputs(
        data_dir=settings.data_dir,
        limits=limits,
        max_duration_s=settings.MAX_DURATION_SEC,
        timeout_s=settings.JOB_TIMEOUT_SEC,
    )


def _rhythm(settings: Settings) -> Rhythm:
    return Rhythm(
        poll_interval_s=settings.poll_interval_s,
        prefetch_jobs=settings.PREFETCH_JOBS,
        prefetch_lead_s=settings.PREFETCH_LEAD_SEC,
    )


if __name__ == "__main__":
    sys.exit(main())
