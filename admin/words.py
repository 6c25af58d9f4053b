"""States, errors and figures in plain words, for the pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jobqueue.job import FINISHED, Event, Job

STATES = {
    "claimed": "queued",
    "fetching": "downloading",
    "ready": "waiting for the GPU",
    "generating": "running",
    "generated": "waiting for upload",
    "uploading": "uploading",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}

SOURCES = {"main": "the orchestrator", "buffer": "the buffer", "queue": "/generate", "local": "an operator"}


def cut(text: object, most: int = 4000) -> str:
    """The beginning of a text that may be of any length, and how much more there is."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[:most]}… (the first {most:,} of {len(whole):,} characters)"


def masked(link: str) -> str:
    """A link without what signs it."""
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")


def seconds(start: str, end: str) -> float:
    """Between two times of day; 0 if the clock was put back in between."""
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def clock_time(at_s: float) -> str:
    """The hour and minute of wall seconds, UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M UTC")


def lasted(seconds_: float) -> str:
    """A duration as people say it."""
    if seconds_ < 100:
        return f"{seconds_:.1f} s" if seconds_ < 10 else f"{seconds_:.0f} s"
    minutes, rest = divmod(round(seconds_), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def sized(size_bytes: float) -> str:
    """A file's size as people say it."""
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:.1f} MB"


def picture_size(job: Job) -> tuple[int, int] | None:
    """Width and height of the finished video, if the job says."""
    metrics = job.result.get("metrics") or {}
    width, height = metrics.get("width"), metrics.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def timeline(events: list[Event], now: str) -> list[dict[str, Any]]:
    """The events with how long each state lasted and its share of the longest, in percent."""
    ends = [following.at for following in events[1:]] + [now]
    spans = [seconds(event.at, end) for event, end in zip(events, ends, strict=True)]
    spans = [0.0 if event.state in FINISHED else span for event, span in zip(events, spans, strict=True)]
    longest = max(spans, default=0.0) or 1.0
    return [
        {
            "event": event,
            "word": STATES[event.state],
            "seconds": max(0.0, spent),
            "share": max(0.5, round(100 * spent / longest, 1)),  # a sliver is seen
            "ends": event.state in FINISHED,
        }
        for event, spent in zip(events, spans, strict=True)
    ]


def left_s(job: Job, now: str) -> float | None:
    """Seconds until a running job is expected to end, from how far it is; None while there is nothing to go by."""
    if job.state != "generating" or not job.started_at or job.progress <= 0.2:
        return None
    passed = seconds(job.started_at, now)
    return max(0.0, passed * (1 - job.progress) / (job.progress - 0.1))
