"""The GPU page: charts of the last day, what held the clocks back, who is on the card, how it is. It never asks NVML itself.

The poller keeps the samples; a card's facts are what the poller last said. The charts are drawn by `static/gpu.js` from
`/gpu/history`; without a script the tables say the same.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import flask
import psutil

from admin.live import live, said, words_of
from jobqueue import clock, glance
from jobqueue.samples import COARSE_S, card_of
from telemetry.health import link, traits

pages = flask.Blueprint("gpu", __name__)

#: By name: how long a chart reaches back, and how many seconds a point of it stands for.
RANGES = {"20 min": (1200, 1), "6 h": (6 * 3600, 30), "24 h": (24 * 3600, 120)}

#: The rows of the tables: column of a sample, what it is, unit, and by what to divide it.
ROWS = (
    ("load", "GPU busy", "%", 1),
    ("encoder", "video encoder", "%", 1),
    ("decoder", "video decoder", "%", 1),
    ("memory_used_mib", "memory used", "GiB", 1024),
    ("temperature_c", "temperature", "°C", 1),
    ("memory_temperature_c", "memory temperature", "°C", 1),
    ("power_w", "power", "W", 1),
    ("clock_sm_mhz", "clock", "MHz", 1),
    ("clock_memory_mhz", "memory clock", "MHz", 1),
)
#: Columns that the charts have.
DRAWN = ("at", *(name for name, *_ in ROWS), "memory_total_mib", "power_limit_w")
#: Marks of jobs that are sent at once.
MAX_JOBS = 1500
#: How old the tables of the past may be, in seconds; what is now is never older than the poller's last word.
PAST_S = 10
#: What NVML's reasons mean, and whether somebody should look. `telemetry.card.THROTTLE_WORDS` has them all.
REASONS = {
    "idle": ("idle, so the clocks are low", False),
    "app clock setting": ("the clocks have been set manually", False),
    "power cap": ("the power limit is reached", False),
    "hardware slow-down": ("the card protects itself from heat or insufficient power", True),
    "sync boost": ("in sync with another card", False),
    "software heat limit": ("too warm for the full clock", True),
    "hardware heat limit": ("too hot", True),
    "power brake": ("the power supply demands less power", True),
    "display": ("a display needs a lower clock", False),
}


@pages.get("/gpu")
def page() -> flask.Response:
    samples = flask.current_app.extensions["worker"].samples
    return live(lambda: flask.render_template("gpu.html", **_seen()), words_of("poller"), samples.mark()[0] // COARSE_S)


@pages.get("/gpu/history")
def history() -> dict[str, Any]:
    """The samples after a time, as columns by card, and the jobs that were on the GPU then or are."""
    worker, request = flask.current_app.extensions["worker"], flask.request
    span_s, step_s = RANGES.get(request.args.get("range", ""), RANGES["20 min"])
    now = time.time()
    after = max(request.args.get("after", 0, type=int), int(now) - span_s - step_s)
    jobs = glance.marks(worker.queue.database, clock.utc(min(after, now) - now), MAX_JOBS)
    cards = worker.samples.columns(min(after, 2**40), step_s)
    return {
        "moved": worker.samples.mark()[1],
        "now": int(now),
        "step": step_s,
        "cards": {card: {name: columns[name] for name in DRAWN} for card, columns in cards.items()},
        "jobs": [[job["id"], job["since"], job["until"], job["state"]] for job in jobs],
    }


def _seen() -> dict[str, Any]:
    worker, poller = flask.current_app.extensions["worker"], said().get("poller", {})
    samples = worker.samples
    chosen = flask.request.args.get("range", "")
    chosen = chosen if chosen in RANGES else "20 min"
    now, (span_s, _) = time.time(), RANGES[chosen]

    def tables() -> tuple[Any, Any, Any]:
        return samples.extremes(now - span_s, now), samples.held(now - 3600), samples.columns(int(now) - 1200, 60)

    past, held, minutes = worker.seen.settled(f"gpu {chosen}", (samples.mark()[0] or now) // PAST_S, tables)
    health = {card_of(card): card for card in poller.get("gpu_health") or []}
    cards = [
        {
            "gpu": gpu,
            "id": card_of(gpu),
            "health": health.get(card_of(gpu), {}),
            "link": link(health.get(card_of(gpu), {})),
            "traits": traits(gpu, health.get(card_of(gpu), {})),
            "past": past.get(card_of(gpu), {}),
            "held": {word: share for word, share in held.get(card_of(gpu), {}).items() if share > 0},
            "minutes": minutes.get(card_of(gpu)),
            "processes": [(process, whose(process["pid"])) for process in gpu.get("processes") or ()],
        }
        for gpu in poller.get("gpus") or []
    ]
    jobs = glance.runs(worker.queue.database, clock.utc(-span_s), most=20)
    return {"cards": cards, "ranges": RANGES, "range": chosen, "rows": ROWS, "reasons": REASONS, "jobs": jobs, "poller": poller}


def whose(pid: int) -> str:
    """What a process on the card is. NVML counts by the host's ids, so in a container it may be nobody we can see."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return "hidden (a host process ID)"
    if "inference" in command and "-m" in command:
        return "this worker's inference"
    return (Path(command[0]).name[:60] if command else "") or "unknown"
