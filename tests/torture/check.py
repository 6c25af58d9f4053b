"""The invariants of docs/architecture.md, checked from the outside records: what the orchestrator was told, what the store
holds, what the engine noted, when heartbeats passed. The worker's own database is only asked whether it agrees."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobqueue import spool
from jobqueue.database import Database
from tests.torture.nemesis import events

#: A silence of the worker above this is a bug, in seconds.
MAX_GAP_S = 15.0

Jobs = list[dict[str, Any]]


def violations(jobs: Jobs, expected: Mapping[str, bytes], objects: Mapping[str, tuple[int, str]], data_dir: Path) -> list[str]:
    """Everything that is not as it must be, in words; empty if all is well.

    jobs      each with its `reports`, from the orchestrator
    expected  what the finished video of each job must be, by job id
    objects   size and SHA-1 of what the store holds, by name
    """
    found: list[str] = []
    for job in jobs:
        found += _reports(job) + _object(job, expected[job["musetalk_job_id"]], objects)
    return found + _overlaps(data_dir, [job["musetalk_job_id"] for job in jobs]) + _queue(data_dir, jobs)


def gaps(heartbeats: list[float], plugs: int) -> list[str]:
    """Silences of the worker, apart from those that restarts of the whole container explain."""
    silences = [after - before for before, after in itertools.pairwise(heartbeats)]
    long = [f"no heartbeat for {silence:.1f} s" for silence in silences if silence > MAX_GAP_S]
    return long[plugs:]


def _reports(job: dict[str, Any]) -> list[str]:
    """Exactly one terminal report was accepted, and none contradicted it."""
    job_id, found = job["musetalk_job_id"], []
    verdicts = Counter(report["verdict"] for report in job["reports"])
    if job["state"] not in ("succeeded", "failed", "cancelled"):
        found.append(f"{job_id}: is {job['state']}, it never ended")
    elif verdicts["accepted"] != 1:
        found.append(f"{job_id}: {verdicts['accepted']} terminal reports were accepted, not 1 ({dict(verdicts)})")
    if verdicts["conflict"]:
        found.append(f"{job_id}: was reported both ways")
    return found


def _object(job: dict[str, Any], expected: bytes, objects: Mapping[str, tuple[int, str]]) -> list[str]:
    """What is said to have succeeded is in the store, byte for byte."""
    if job["state"] != "succeeded":
        return []
    name = f"avatar/outputs/{job['musetalk_job_id']}.mp4"
    wanted = (len(expected), hashlib.sha1(expected, usedforsecurity=False).hexdigest())
    if objects.get(name) != wanted:
        return [f"{job['musetalk_job_id']}: succeeded, but the store holds {objects.get(name)}, not {wanted}"]
    return []


def _overlaps(data_dir: Path, job_ids: list[str]) -> list[str]:
    """No two processes worked on one job at the same time: nobody notes anything once another has begun."""
    names = {spool.folder(data_dir, job_id).name: job_id for job_id in job_ids}
    holder: dict[str, int] = {}
    former: dict[str, set[int]] = {}
    found = []
    for _at, pid, folder, what in events(data_dir):
        if pid in former.get(folder, set()):
            found.append(f"{names.get(folder, folder)}: process {pid} noted {what} although {holder[folder]} had begun")
        if what == "begin" and holder.get(folder) not in (None, pid):
            former.setdefault(folder, set()).add(holder[folder])
        if what == "begin":
            holder[folder] = pid
    return found


def _queue(data_dir: Path, jobs: Jobs) -> list[str]:
    """The worker's own queue is sound, agrees with the orchestrator, and owes nobody a report."""
    database = Database(data_dir / "jobs.db")
    found = [f"queue: {row['integrity_check']}" for row in database.read("pragma integrity_check")]
    found = [line for line in found if line != "queue: ok"]
    states = {row["id"]: row["state"] for row in database.read("select id, state from job")}
    for job in jobs:
        here = states.get(job["musetalk_job_id"])
        if here is not None and here != job["state"]:
            found.append(f"{job['musetalk_job_id']}: {here} here, {job['state']} at the orchestrator")
    unsent = "select job from event where sent_at is null and state in ('succeeded', 'failed', 'cancelled')"
    found += [f"{row['job']}: its end is still to be reported" for row in database.read(unsent)]
    orphans = "select job from report where not exists (select 1 from job where job.id = report.job)"
    found += [f"{row['job']}: is gone, but not what was reported of it" for row in database.read(orphans)]
    illegal = """select a.job, a.state as old, b.state as new from event a join event b
        on b.id = (select min(id) from event where job = a.job and id > a.id)
        where not exists (select 1 from transition t where t.old = a.state and t.new = b.state)"""
    found += [f"{row['job']}: went from {row['old']} to {row['new']}" for row in database.read(illegal)]
    database.close()
    return found
