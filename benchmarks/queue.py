"""Our queue against huey's SqliteHuey, litequeue and persist-queue: three stages in three processes, at equal durability.

    python -m benchmarks.queue            (after ./worker test has installed the peers)

Each job is added by a producer and handed over three times; every commit is synced to disk (synchronous=FULL) in all four.
Ours also writes a history row for each of its seven state changes, is fenced by owner and survives any crash; with huey, a job
is lost if its consumer dies. Rounds are interleaved; the table shows medians and the ratio to the best peer of the same run.
Then, for ours: how long after a commit the next stage starts to take the job, one job at a time, and what three idle consumers
cost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.synchronize
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from jobqueue import migrations
from jobqueue.database import Database
from jobqueue.job import STAGES, NewJob, Stage
from jobqueue.queue import Queue

PAYLOAD = {"video_url": "https://example.com/face.mp4", "audio_url": "https://example.com/speech.wav"}
#: The polling interval in seconds of peers, which have no wake-up between processes.
PEER_POLL_S = 0.001
LIMIT_S = 300.0

Consumer = Callable[[Path, int, int], None]


def ours_produce(folder: Path, jobs: int) -> None:
    queue = Queue(Database(folder / "jobs.db"))
    for number in range(jobs):
        queue.add(NewJob(id=f"j{number}", source="main", engine="musetalk", inputs=PAYLOAD))


def ours_consume(folder: Path, index: int, jobs: int) -> None:
    stage = STAGES[index]
    queue = Queue(Database(folder / "jobs.db"), stage.program)
    following, result = None, {"output_url": "https://example.com/out.mp4"}
    for _ in range(jobs):
        taken = following or _next(queue, stage)[0]
        _, following = queue.done_and_take(stage, taken, result)


def _next(queue: Queue, stage: Stage) -> tuple[Any, float]:
    """Wait for a job as the worker's loop does; returns it and when the successful poll started."""
    while True:
        mark = queue.bell.mark()
        start = time.monotonic()
        if (job := queue.take(stage, f"{stage.program}/bench")) is not None:
            return job, start
        queue.bell.wait(mark)


def huey_storage(folder: Path, index: int) -> Any:
    from huey.storage import SqliteStorage

    return SqliteStorage(name=f"q{index}", filename=str(folder / "huey.db"), fsync=True)


def huey_produce(folder: Path, jobs: int) -> None:
    storage = huey_storage(folder, 0)
    for number in range(jobs):
        storage.enqueue(json.dumps({"id": number, **PAYLOAD}).encode())


def huey_consume(folder: Path, index: int, jobs: int) -> None:
    source, target = huey_storage(folder, index), huey_storage(folder, index + 1)
    for _ in range(jobs):
        while (data := source.dequeue()) is None:
            time.sleep(PEER_POLL_S)
        target.enqueue(data)


def lite_queue(folder: Path, index: int) -> Any:
    from litequeue import LiteQueue

    queue = LiteQueue(str(folder / "lite.db"), queue_name=f"q{index}")
    queue.conn.execute("pragma synchronous = full")
    queue.conn.execute("pragma busy_timeout = 10000")
    return queue


def lite_produce(folder: Path, jobs: int) -> None:
    queue = lite_queue(folder, 0)
    for number in range(jobs):
        queue.put(json.dumps({"id": number, **PAYLOAD}))


def lite_consume(folder: Path, index: int, jobs: int) -> None:
    source, target = lite_queue(folder, index), lite_queue(folder, index + 1)
    for _ in range(jobs):
        while (message := source.pop()) is None:
            time.sleep(PEER_POLL_S)
        target.put(message.data)
        source.done(message.message_id)


def persist_queue(folder: Path, index: int) -> Any:
    from persistqueue import SQLiteAckQueue

    return SQLiteAckQueue(str(folder / "persist"), name=f"q{index}", multithreading=True, auto_commit=True)


def persist_produce(folder: Path, jobs: int) -> None:
    queue = persist_queue(folder, 0)
    for number in range(jobs):
        queue.put({"id": number, **PAYLOAD})


def persist_consume(folder: Path, index: int, jobs: int) -> None:
    """It keeps its cursor in memory, so when empty, the queue must be reopened to see what other processes added."""
    from persistqueue.exceptions import Empty

    source, target = persist_queue(folder, index), persist_queue(folder, index + 1)
    for _ in range(jobs):
        while True:
            try:
                item = source.get(block=False, raw=True)
                break
            except Empty:
                time.sleep(PEER_POLL_S)
        target.put(item["data"])
        source.ack(id=item["pqid"])


CONTESTANTS: dict[str, tuple[Callable[[Path, int], None], Consumer]] = {
    "ours": (ours_produce, ours_consume),
    "huey SqliteHuey": (huey_produce, huey_consume),
    "litequeue": (lite_produce, lite_consume),
    "persist-queue": (persist_produce, persist_consume),
}


def throughput(name: str, folder: Path, jobs: int) -> float | None:
    """Jobs per second from the first add to the last hand-over; None if it failed or took longer than LIMIT_S."""
    produce, consume = CONTESTANTS[name]
    if name == "ours":
        migrations.prepare(folder / "jobs.db")
    else:
        produce(folder, 0)
    workers = [multiprocessing.Process(target=consume, args=(folder, index, jobs)) for index in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(1.0)  # until all have opened their queues
    began = time.monotonic()
    producer = multiprocessing.Process(target=produce, args=(folder, jobs))
    producer.start()
    for process in (*workers, producer):
        process.join(max(0.0, LIMIT_S - (time.monotonic() - began)))
    took = time.monotonic() - began
    broken = [process for process in (*workers, producer) if process.exitcode != 0]
    for process in broken:
        process.kill()
        process.join()
    return None if broken else jobs / took


def handover_ms(folder: Path, jobs: int) -> list[float]:
    """One job at a time: from a stage's commit until the next stage starts to take the job, in ms."""
    migrations.prepare(folder / "jobs.db")
    results: Any = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_timed_consumer, args=(folder, index, jobs, results)) for index in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(1.0)
    queue = Queue(Database(folder / "jobs.db"), "api")
    for number in range(jobs):
        queue.add(NewJob(id=f"j{number}", source="main", engine="musetalk", inputs=PAYLOAD))
        while queue.counts().get("succeeded", 0) <= number:
            queue.bell.wait(queue.bell.mark(), 0.01)
    seen = [results.get(timeout=30) for _ in range(3)]
    for worker in workers:
        worker.join(30)
    committed = {(index, job): at for index, _, commits in seen for job, at in commits}
    return [1000 * (at - committed[index - 1, job]) for index, takes, _ in seen if index for job, at in takes]


def _timed_consumer(folder: Path, index: int, jobs: int, results: Any) -> None:
    stage = STAGES[index]
    queue = Queue(Database(folder / "jobs.db"), stage.program)
    takes, commits = [], []
    for _ in range(jobs):
        job, start = _next(queue, stage)
        takes.append((job.id, start))
        queue.done(stage, job, {"output_url": "https://example.com/out.mp4"})
        commits.append((job.id, time.monotonic()))
    results.put((index, takes, commits))


def idle_share(folder: Path, seconds: float) -> float:
    """The fraction of one core that three idle consumers use together."""
    migrations.prepare(folder / "jobs.db")
    workers = [multiprocessing.Process(target=_idle_consumer, args=(folder, index), daemon=True) for index in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(2.0)
    processes = [psutil.Process(worker.pid) for worker in workers]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(seconds)
    used = sum(sum(process.cpu_times()[:2]) - start for process, start in zip(processes, before, strict=True))
    for worker in workers:
        worker.kill()
        worker.join()
    return used / seconds


def _idle_consumer(folder: Path, index: int) -> None:
    queue = Queue(Database(folder / "jobs.db"), STAGES[index].program)
    threading.Thread(target=_next, args=(queue, STAGES[index]), daemon=True).start()
    threading.Event().wait(3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(arguments.rounds):
        for name in CONTESTANTS:
            with tempfile.TemporaryDirectory() as folder:
                rate = throughput(name, Path(folder), arguments.jobs)
            rates[name] += [rate] if rate is not None else []
    with tempfile.TemporaryDirectory() as folder:
        handovers = handover_ms(Path(folder), 100)
    with tempfile.TemporaryDirectory() as folder:
        idle = idle_share(Path(folder), 20.0)
    medians = {name: statistics.median(values) if values else None for name, values in rates.items()}
    best = max(value for name, value in medians.items() if name != "ours" and value is not None)
    p50, p99 = statistics.median(handovers), statistics.quantiles(handovers, n=100)[98]
    if arguments.json:
        print(json.dumps({"jobs_per_s": medians, "handover_p50_ms": p50, "handover_p99_ms": p99, "idle_core_share": idle}))
        return
    print(f"{arguments.jobs} jobs, three hand-overs each, synchronous=FULL, median of {arguments.rounds} rounds\n")
    print("| queue | jobs/s | vs best peer |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.0f} | {value / best:.2f} |" if value else f"| {name} | did not finish | |")
    print(f"\nhand-over beyond the commit: p50 {p50:.2f} ms, p99 {p99:.2f} ms (negative: before the commit had returned)")
    print(f"three idle consumers: {100 * idle:.2f} % of a core")


if __name__ == "__main__":
    main()
