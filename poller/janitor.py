"""The janitor loop: keeps the data folder under its limit and removes what nobody needs any more.

A job's files go only after its last event has been acknowledged. The database file itself is never opened here: sizes come
from directory entries.
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
from telemetry.disk import entries, files, held_bytes, least_free_bytes, size_bytes

log = logging.getLogger(__name__)

#: Seconds until the first round, and between two; and between two looks for files that an operator wants removed.
FIRST_S, EVERY_S, ASKED_S = 10.0, 60.0, 2.0
#: The most of a core that rounds may take; many small jobs make them longer, and so more seldom, down to this pause (s).
MOST_SHARE, SELDOM_S = 0.005, 300.0
#: The same while too little is left on the disk: it fills up within seconds.
SHORT_SHARE, SHORT_S = 0.05, 10.0
#: Room is made on the disk, whatever DATA_LIMIT_GB allows, below so many times of what must be free for a job to be claimed,
#: and up to twice that, or it would soon be full again.
LEFT_TIMES = 2
#: Room on the disk, in reserves, at which the one that was given up is made anew.
ROOM_FOR_RESERVE = 8
#: A folder that belongs to no job is left alone for this long (s): its job may be just about to be added.
ORPHAN_S = 3600.0
#: A file that was handed in and that no unfinished job names is left alone for this long (s).
INCOMING_S = 86400.0
#: A killed process's child may write for a moment longer (s).
LEFTOVER_S = 60.0
#: After which the next round tries again.
TROUBLE: tuple[type[Exception], ...] = (*ERRORS, OSError)
#: More than this is for ever (s): a day that long ago may be before the calendar begins.
EVER_S = 100 * 365 * 86400.0
#: Rows removed in one commit.
BATCH = 200
GB = 1e9


class Janitor:
    """The loop, and what it may keep."""

    def __init__(self, queue: Queue, outbox: Outbox, data_dir: Path, limit_bytes: float, keep_s: float) -> None:
        self._queue, self._outbox, self._data_dir = queue, outbox, data_dir
        self._control = Control(queue.database)
        self._limit_bytes, self._keep_s = limit_bytes, keep_s
        self._complained = ""

    def loop(self, stop: threading.Event) -> None:
        """Clean once a minute, or less often while there is room, until `stop` is set; what an operator wants removed goes
        within seconds."""
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
        """Remove the files of jobs that an operator wants removed; those of a job whose end is not acknowledged yet wait."""
        for job_id in self._control.discards():
            job = self._queue.get(job_id)
            if job is not None and job.finished:  # else it has begun anew, and nothing goes
                if any(event.ends and event.sent_at is None for event in self._outbox.history(job_id)):
                    continue
                faults.point("janitor.before_remove")
                spool.remove(self._data_dir, job_id)
                if (stored := spool.stored_file(self._data_dir, job)) is not None:
                    for file in (stored, stored.with_suffix(".json")):  # with what the uploader says of it beside it
                        file.unlink(missing_ok=True)
                log.info("removed the files of job %.200s, as an operator asked", job_id)
            self._control.end_discard(job_id)

    def _forget_old(self) -> None:
        """Rows and files of jobs that are older than what is kept."""
        before = clock.utc(-min(self._keep_s, EVER_S))
        while jobs := self._outbox.removable(before, BATCH):
            faults.point("janitor.before_remove")
            for job in jobs:
                self._remove_folder(job.id)
            self._outbox.forget([job.id for job in jobs])
            log.info("forgot %d jobs that ended before %s", len(jobs), before)

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
        """Unfinished downloads and outputs of jobs that are over."""
        for folder in entries(self._data_dir / "jobs"):
            if folder.name not in settled:
                continue
            for file in entries(Path(folder.path)):
                if (".part" in file.name or ".tmp" in file.name) and _age_s(file) > LEFTOVER_S:
                    Path(file.path).unlink(missing_ok=True)

    def _remove_orphans(self, known: set[str]) -> None:
        """Folders in jobs/ that belong to no row."""
        for entry in entries(self._data_dir / "jobs"):
            if entry.name not in known and _age_s(entry) > ORPHAN_S:
                shutil.rmtree(entry.path, ignore_errors=True)
                log.info("removed the folder %s, which belongs to no job", entry.name)

    def _remove_incoming(self) -> None:
        """Files that were handed in and that no unfinished job will ask for any more."""
        wanted = {str(link) for job in self._queue.unfinished() for link in job.inputs.values()}
        for entry in entries(incoming(self._data_dir)):
            if _age_s(entry) > INCOMING_S and Path(entry.path).absolute().as_uri() not in wanted:
                Path(entry.path).unlink(missing_ok=True)

    def _renew_reserve(self) -> None:
        """Once there is room again: the next full disk needs one as well, and the worker may run on for months."""
        database = self._queue.database.path
        if not database.with_suffix(".reserve").exists() and _free_bytes(self._data_dir) >= ROOM_FOR_RESERVE * RESERVE_BYTES:
            migrations.make_reserve(database)
            log.info("there is room again: the reserve beside the queue was made anew")

    def _make_room(self, settled: dict[str, str], open_: dict[str, str]) -> None:
        """Bring the folder under its limit: what the engine keeps to save time, then folders of jobs that are over, then stored
        outputs, each the oldest first. On a disk that is smaller, or full of other things, room is made as well, but stored
        outputs stay: they are what the jobs were for."""
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
        """What came of it. That there still is too little room is said once, not at every round of days."""
        if over_bytes > 0:
            words = "the data folder is still over DATA_LIMIT_GB: unfinished work needs it"
        elif lacking_bytes > 0:
            words = "the disk is nearly full, and nothing is left here that could go; make room on it"
        else:
            words = ""
            log.info(
                "the data folder was over its limit, or its disk nearly full; the oldest that nobody waits for was removed"
            )
        if words and words != self._complained:
            log.warning("%s (%.2f GB)", words, max(over_bytes, lacking_bytes) / GB)
        self._complained = words


def pause_after(spent_s: float) -> float:
    """How long until the next round, in seconds, after one that took so many seconds of a processor."""
    return max(EVERY_S, min(spent_s / MOST_SHARE, SELDOM_S))


def _job_of(name: str) -> str:
    """The end of the id of the job that a file of the store is of: ID.mp4, ID.json, or .ID.mp4.part while it is copied."""
    return Path(name.removeprefix(".").removesuffix(".part")).stem


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _lacking_bytes(folder: Path) -> float:
    """What must go from a disk on which too little is left."""
    disk = shutil.disk_usage(folder)
    left_bytes = LEFT_TIMES * least_free_bytes(disk.total)
    return 2 * left_bytes - disk.free if disk.free < left_bytes else 0.0


def _thinned(files: Iterable[os.DirEntry[str]], over_bytes: float) -> float:
    """Remove the oldest of these until there is room; returns what is still over."""
    for file in sorted(files, key=_age_s, reverse=True):
        if over_bytes <= 0:
            break
        faults.point("janitor.before_remove")
        over_bytes -= size_bytes(file)
        Path(file.path).unlink(missing_ok=True)
    return over_bytes


def _age_s(entry: os.DirEntry[str]) -> float:
    """Seconds since a file or folder was changed; 0 if it has gone."""
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
