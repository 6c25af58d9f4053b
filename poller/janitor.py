"""The janitor loop: keeps the data folder under its limit and deletes what is no longer needed.

A job's files are deleted only after its last event has been acknowledged. The database file itself is never opened here:
sizes come from directory entries.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from jobqueue import clock, faults, migrations, spool
from jobqueue.control import Control
from jobqueue.database import ERRORS, RESERVE_BYTES
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from operations import incoming
from telemetry.disk import entries, files, held_bytes, min_free_bytes, size_bytes

log = logging.getLogger(__name__)

#: Seconds until the first round, between rounds, and between checks for files that an operator wants deleted.
FIRST_S, EVERY_S, ASKED_S = 10.0, 60.0, 2.0
#: Maximum share of a core for rounds; many small jobs make them longer, and so less frequent, up to this interval (s).
MAX_SHARE, SELDOM_S = 0.005, 300.0
#: The same while the disk is nearly full: it fills up within seconds.
SHORT_SHARE, SHORT_S = 0.05, 10.0
#: Regardless of DATA_LIMIT_GB, space is freed below this multiple of what must be free for a job to be claimed, and up to twice
#: that, or the disk would soon be full again.
LEFT_TIMES = 2
#: Free space, in reserves, at which the reserve is recreated.
ROOM_FOR_RESERVE = 8
#: A folder without a job is kept for this long (s): its job may be about to be added.
ORPHAN_S = 3600.0
#: A submitted file that no unfinished job uses is kept for this long (s).
INCOMING_S = 86400.0
#: A killed process's child may keep writing for a moment (s).
LEFTOVER_S = 60.0
#: Errors after which the next round tries again.
TROUBLE: tuple[type[Exception], ...] = (*ERRORS, OSError)
#: More than this is forever (s): a date that long ago may be before the calendar begins.
EVER_S = 100 * 365 * 86400.0
#: Rows deleted per commit.
BATCH = 200
GB = 1e9


class Janitor:
    """The loop, and its limits."""

    def __init__(self, queue: Queue, outbox: Outbox, data_dir: Path, limit_bytes: float, keep_s: float) -> None:
        self._queue, self._outbox, self._data_dir = queue, outbox, data_dir
        self._control = Control(queue.database)
        self._limit_bytes, self._keep_s = limit_bytes, keep_s
        self._complained = ""

    def loop(self, stop: threading.Event) -> None:
        """Clean up once a minute, or less often while there is space, until `stop` is set; files that an operator wants deleted
        go within seconds."""
        due = soonest = clock.now() + FIRST_S
        while not stop.wait(ASKED_S):
            try:
                self.discard()
                if clock.now() >= (soonest if _lacking_bytes(self._data_dir) > 0 else due):
                    due = soonest = clock.now() + EVERY_S
                    began_s = time.thread_time()
                    self.clean()
                    spent_s = time.thread_time() - began_s
                    due, soonest = clock.now() + pause_after(spent_s), clock.now() + max(SHORT_S, spent_s / SHORT_SHARE)
            except TROUBLE as error:
                log.warning("the data folder could not be cleaned: %s", error)

    def clean(self) -> None:
        """One round."""
        self._forget_old()
        settled, open_ = self._known()
        self._remove_leftovers(settled)
        self._remove_orphans({*settled, *open_})
        self._remove_incoming()
        self._make_room(settled, open_)
        self._renew_reserve()

    def discard(self) -> None:
        """Delete the files of jobs as requested by an operator; a job whose end is not acknowledged yet keeps its files."""
        for job_id in self._control.discards():
            job = self._queue.get(job_id)
            if job is not None and job.finished:  # otherwise it has been retried, and nothing is deleted
                if any(event.ends and event.sent_at is None for event in self._outbox.history(job_id)):
                    continue
                faults.point("janitor.before_remove")
                spool.remove(self._data_dir, job_id)
                if (stored := spool.stored_file(self._data_dir, job)) is not None:
                    for file in (stored, stored.with_suffix(".json")):  # with the uploader's sidecar
                        file.unlink(missing_ok=True)
                log.info("deleted the files of job %.200s, requested by an operator", job_id)
            self._control.end_discard(job_id)

    def _forget_old(self) -> None:
        """Delete rows and files of jobs past their retention."""
        before = clock.utc(-min(self._keep_s, EVER_S))
        while jobs := self._outbox.removable(before, BATCH):
            faults.point("janitor.before_remove")
            for job in jobs:
                self._remove_folder(job.id)
            self._outbox.forget([job.id for job in jobs])
            log.info("deleted %d jobs that ended before %s", len(jobs), before)

    def _known(self) -> tuple[dict[str, str], dict[str, str]]:
        """Ids by the names of their folders: of jobs that are over and acknowledged and have one, oldest first, and of all that
        are not. Rows are kept longer than files, and only what has files is remembered here."""
        there = {entry.name for entry in entries(self._data_dir / "jobs")}
        settled: list[tuple[str, str, str]] = []
        open_: dict[str, str] = {}
        for job_id, settled_at in self._outbox.known():
            name = spool.folder(self._data_dir, job_id).name
            if settled_at is None:
                open_[name] = job_id
            elif name in there:
                settled.append((settled_at, name, job_id))
        return {name: job_id for _, name, job_id in sorted(settled)}, open_

    def _remove_folder(self, job_id: str) -> None:
        job = self._queue.get(job_id)
        if job is None or job.finished:  # a new round may just have begun
            spool.remove(self._data_dir, job_id)

    def _remove_leftovers(self, settled: dict[str, str]) -> None:
        """Delete unfinished downloads and outputs of ended jobs."""
        for folder in entries(self._data_dir / "jobs"):
            if folder.name not in settled:
                continue
            for file in entries(Path(folder.path)):
                if (".part" in file.name or ".tmp" in file.name) and _age_s(file) > LEFTOVER_S:
                    Path(file.path).unlink(missing_ok=True)

    def _remove_orphans(self, known: set[str]) -> None:
        """Delete folders in jobs/ that belong to no row."""
        for entry in entries(self._data_dir / "jobs"):
            if entry.name not in known and _age_s(entry) > ORPHAN_S:
                shutil.rmtree(entry.path, ignore_errors=True)
                log.info("deleted the folder %s, which belongs to no job", entry.name)

    def _remove_incoming(self) -> None:
        """Delete submitted files that no unfinished job needs."""
        wanted = {str(link) for job in self._queue.unfinished() for link in job.inputs.values()}
        for entry in entries(incoming(self._data_dir)):
            if _age_s(entry) > INCOMING_S and Path(entry.path).absolute().as_uri() not in wanted:
                Path(entry.path).unlink(missing_ok=True)

    def _renew_reserve(self) -> None:
        """Recreate the reserve once there is space: the next full disk needs it, and the worker may run for months."""
        database = self._queue.database.path
        if not database.with_suffix(".reserve").exists() and _free_bytes(self._data_dir) >= ROOM_FOR_RESERVE * RESERVE_BYTES:
            migrations.make_reserve(database)
            log.info("the disk has space again: recreated the queue's reserve")

    def _make_room(self, settled: dict[str, str], open_: dict[str, str]) -> None:
        """Bring the folder under its limit: delete the engine's caches, then folders of ended jobs, then stored outputs, oldest
        first. Space is also freed on a disk that is smaller, or full of other files, but stored outputs stay there: they are
        what the jobs were for."""
        over_bytes, lacking_bytes = held_bytes(self._data_dir) - self._limit_bytes, _lacking_bytes(self._data_dir)
        if (wanted_bytes := max(over_bytes, lacking_bytes)) <= 0:
            self._complained = ""
            return
        left_bytes = _thinned(files(spool.cache(self._data_dir)), wanted_bytes)
        for name, job_id in settled.items():
            if left_bytes <= 0:
                break
            if (folder_bytes := held_bytes(self._data_dir / "jobs" / name)) > 0:
                faults.point("janitor.before_remove")
                self._remove_folder(job_id)
                left_bytes -= folder_bytes
        over_bytes -= wanted_bytes - left_bytes
        lacking_bytes -= wanted_bytes - left_bytes
        if over_bytes > 0:
            unreported = {job_id.rsplit("/", 1)[-1] for job_id in open_.values()}
            stored = (file for file in files(self._data_dir / "outputs") if _job_of(file.name) not in unreported)
            over_bytes = _thinned(stored, over_bytes)
        self._say(over_bytes, lacking_bytes)

    def _say(self, over_bytes: float, lacking_bytes: float) -> None:
        """Log the result. That the disk is still too full is logged once, not in every round for days."""
        if over_bytes > 0:
            words = "the data folder is still over DATA_LIMIT_GB: unfinished jobs need it"
        elif lacking_bytes > 0:
            words = "the disk is nearly full, and nothing more can be deleted here; free some space"
        else:
            words = ""
            log.info("the data folder was over its limit, or its disk nearly full; deleted the oldest unneeded files")
        if words and words != self._complained:
            log.warning("%s (%.2f GB)", words, max(over_bytes, lacking_bytes) / GB)
        self._complained = words


def pause_after(spent_s: float) -> float:
    """Seconds until the next round, after one that took this much CPU time."""
    return max(EVERY_S, min(spent_s / MAX_SHARE, SELDOM_S))


def _job_of(name: str) -> str:
    """The end of the job id in the name of a stored file: ID.mp4, ID.json, or .ID.mp4.part while it is copied."""
    return Path(name.removeprefix(".").removesuffix(".part")).stem


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _lacking_bytes(folder: Path) -> float:
    """How much must be deleted from a disk that is too full."""
    disk = shutil.disk_usage(folder)
    left_bytes = LEFT_TIMES * min_free_bytes(disk.total)
    return 2 * left_bytes - disk.free if disk.free < left_bytes else 0.0


def _thinned(files: Iterable[os.DirEntry[str]], over_bytes: float) -> float:
    """Delete the oldest of these until there is space; returns the remaining excess."""
    for file in sorted(files, key=_age_s, reverse=True):
        if over_bytes <= 0:
            break
        faults.point("janitor.before_remove")
        over_bytes -= size_bytes(file)
        Path(file.path).unlink(missing_ok=True)
    return over_bytes


def _age_s(entry: os.DirEntry[str]) -> float:
    """Seconds since a file or folder was changed; 0 if it is gone."""
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
