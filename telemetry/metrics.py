"""The worker's metrics in Prometheus text format, built at each scrape from the caller's data; unknown means absent, not 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: What a worker can be, for worker_mode.
MODES = ("starting", "active", "paused", "draining", "unfit")

_MIB = 1024 * 1024
#: Metric, help, the reading's name (as telemetry/gpu.py gives it) and what one of its units is in the metric's.
_GPU = (
    ("gpu_utilization_ratio", "Share of time in which the GPU was busy.", "utilization_gpu", 0.01),
    ("gpu_memory_used_bytes", "Memory in use on the card.", "memory_used_mib", _MIB),
    ("gpu_memory_total_bytes", "Memory on the card.", "memory_total_mib", _MIB),
    ("gpu_temperature_celsius", "Temperature of the card.", "temperature_c", 1),
    ("gpu_power_watts", "Power that the card draws.", "power_w", 1),
    ("gpu_sm_clock_hertz", "Clock of the card's multiprocessors.", "clock_sm_mhz", 1_000_000),
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known at a scrape; None for what is not.

    mode                 one of MODES
    jobs_in_state        jobs by state, zeros included
    jobs_ended           ends of jobs since this process began, by (kind, state)
    orchestrator_up      whether the last exchange with it worked
    heartbeat_age_s      seconds since the orchestrator last acknowledged us
    upload_pending       finished videos that are not stored yet
    gpus                 readings as telemetry/gpu.py gives them
    """

    version: str
    model: str
    mode: str | None = None
    jobs_in_state: Mapping[str, int] | None = None
    jobs_ended: Mapping[tuple[str, str], int] = field(default_factory=dict)
    orchestrator_up: bool | None = None
    heartbeat_age_s: float | None = None
    upload_pending: int | None = None
    disk_free_bytes: int | None = None
    gpus: list[dict[str, Any]] = field(default_factory=list)


def text(facts: Facts) -> bytes:
    """The page that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(facts))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        facts = self._facts
        build = GaugeMetricFamily("worker_build_info", "Version and engine; always 1.", labels=["version", "model"])
        build.add_metric([facts.version, facts.model], 1)
        yield build
        modes = {} if facts.mode is None else {mode: int(mode == facts.mode) for mode in MODES}
        yield from _labelled("worker_mode", "1 for the current mode.", "mode", modes)
        yield from _labelled("worker_jobs_in_state", "Jobs in the queue by state.", "state", facts.jobs_in_state or {})
        ended = CounterMetricFamily("worker_jobs", "Jobs that ended since the api started.", labels=["kind", "state"])
        for labels, number in sorted(facts.jobs_ended.items()):
            ended.add_metric(list(labels), number)
        yield ended
        yield from _single("worker_orchestrator_up", "1 if the orchestrator answered last time.", facts.orchestrator_up)
        yield from _single("worker_heartbeat_age_seconds", "Time since the last acknowledged heartbeat.", facts.heartbeat_age_s)
        yield from _single("worker_upload_pending", "Finished videos not uploaded yet.", facts.upload_pending)
        yield from _single("worker_disk_free_bytes", "Free space on the queue's disk.", facts.disk_free_bytes)
        yield from _cards(facts.gpus)


def _single(name: str, documentation: str, value: float | None) -> Iterable[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, documentation, value=float(value))


def _labelled(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Iterable[Metric]:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    if values:
        yield family


def _cards(gpus: list[dict[str, Any]]) -> Iterable[Metric]:
    for name, documentation, reading, unit in _GPU:
        family = GaugeMetricFamily(name, documentation, labels=["gpu", "uuid", "name"])
        for gpu in gpus:
            if gpu.get(reading) is not None:
                family.add_metric(
                    [str(gpu[key]) if gpu.get(key) is not None else "" for key in ("index", "uuid", "name")],
                    gpu[reading] * unit,
                )
        if family.samples:
            yield family
