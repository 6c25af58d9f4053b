"""A past for the queue: thousands of jobs that came, ran and ended, for tests and benchmarks of what looks at them."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from jobqueue.database import Database

INPUTS = ("video_url", "audio_url")
ERROR = {
    "message": "CUDA out of memory while the frames were made: 23.1 of 24.0 GiB used",
    "error_type": "processing_error",
    "retryable": True,
    "stage": "inference",
    "details": {},
    "stack_trace": "Traceback (most recent call last):\n" + "  somewhere deep\n" * 40,
}


def fill(database: Database, jobs: int = 20_000, days: float = 7) -> None:
    """So many jobs, evenly over so many days up to now: one in 50 failed, one in 50 cancelled, one in 10 for FastWan."""
    chance, now = random.Random(1), datetime.now(UTC)
    rows, events = [], []
    for number in range(1, jobs + 1):
        arrived = now - timedelta(days=days) * (1 - number / jobs) - timedelta(minutes=3)
        row, moves = _job(number, arrived, chance)
        rows.append(row)
        events.extend(moves)

    def statements(connection: Any) -> None:
        names = "job_added", "job_begins"  # a job begins as claimed; these have long ended
        triggers = [connection.execute("select sql from sqlite_schema where name = ?", (name,)).fetchall()[0] for name in names]
        for name in names:
            connection.execute(f"drop trigger {name}")
        _insert(connection, "job", rows)
        _insert(connection, "event", events)
        for trigger in triggers:
            connection.execute(trigger["sql"])

    database.write(statements)


def _insert(connection: Any, table: str, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    marks = ", ".join(f":{name}" for name in names)
    connection.executemany(f"insert into {table} ({', '.join(names)}) values ({marks})", rows)


def _job(number: int, arrived: datetime, chance: random.Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    job_id, took_s = f"job-{number:06}", 40 + 60 * chance.random()
    state = "failed" if number % 50 == 0 else "cancelled" if number % 50 == 25 else "succeeded"
    times = (0.0, 0.5, 3.5, 5.0, 5.0 + took_s, 5.1 + took_s, 8.0 + took_s)
    states = ("claimed", "fetching", "ready", "generating", "generated", "uploading", state)
    at = {name: _text(arrived + timedelta(seconds=after)) for name, after in zip(states, times, strict=True)}
    signed = {name: f"https://media.example/{'folder/' * 20}{number}-{name}?sig={'s' * 250}" for name in INPUTS}
    result = {
        "output_url": f"https://store.example/avatar/outputs/{job_id}.mp4",
        "size_bytes": chance.randrange(10**6, 10**7),
        "stage_times": {"download": 3.1, "preprocessing": 2.0, "inference": round(took_s - 4, 3), "upload": 2.9},
        "metrics": {"frames": 500, "fps": 25.0, "width": 512, "height": 512, "PEAK_VRAM_MIB": 10900.0},
        "sha1": f"{number:040}",
    }
    row = {
        "id": job_id,
        "number": number,
        "source": "main",
        "engine": "fastwan" if number % 10 == 0 else "musetalk",
        "inputs": json.dumps(signed),
        "params": "{}",
        "state": state,
        "stage_since": 0.0,
        "result": json.dumps(result if state == "succeeded" else {}),
        "error": json.dumps(ERROR) if state == "failed" else None,
        "cancel_reason": "no longer needed" if state == "cancelled" else None,
        "created_at": at["claimed"],
        "updated_at": at[state],
        "started_at": at["generating"],
        "finished_at": at[state],
    }
    answered = {"tries": 1, "sent_at": at[state], "answer": "200"}
    pending = {"tries": 0, "sent_at": None, "answer": None}
    one = {"job": job_id, "round": 1, "attempt": 1}
    moves = [{**one, "state": name, "at": at[name], **(answered if name == state else pending)} for name in states]
    return row, moves


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
