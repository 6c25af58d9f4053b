"""The operator's actions, each with an audit row; shared by the page, the JSON API and the command line."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import entrance
import supervision
from jobqueue import intake, spool
from jobqueue.control import Control, Flag
from jobqueue.job import Job
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.wake import EVERYONE

#: Programs that an operator may restart; not the guard and supervisord, which would have to do it.
RESTARTABLE = ("poller", "inference", "uploader", "api", "admin")
#: Maximum number of jobs per action.
MAX_AT_ONCE = 500
#: Minimum and maximum duration of a pause, and deadline of a drain, in seconds.
MIN_S, MAX_S = 1.0, 30 * 86400.0
#: The sample job: its files and other fields, by the shape of the job.
SAMPLES = Path(__file__).parent / "samples"
SAMPLE = {"musetalk": {"video_url": "face.mp4", "audio_url": "speech.wav"}, "fastwan": {"image_url": "face.jpg"}}
SAMPLE_WORDS: dict[str, dict[str, str]] = {
    "musetalk": {},
    "fastwan": {"prompt": "The person looks into the camera and smiles."},
}
#: How long a login link of the page is valid, in seconds.
LOGIN_LINK_S = 15 * 60


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Who acts (`cli:root`, `web:1a2b`), on which queue."""

    actor: str
    queue: Queue
    control: Control
    outbox: Outbox

    def pause(self, reason: str, for_s: float | None = None) -> bool:
        """Stop claiming and starting jobs; running jobs finish, uploads and reports continue. False if already paused.

        for_s: the pause expires after this many seconds. Raises ValueError if that is too short or too long.
        """
        return self._put_up("paused", "pause", reason, "until", for_s)

    def resume(self) -> bool:
        """End a pause or a drain. False if there was neither."""
        lowered = [self._take_down("paused", "resume"), self._take_down("draining", "stop draining")]
        return any(lowered)

    def drain(self, reason: str, deadline_s: float | None = None) -> bool:
        """Stop claiming; the container exits when every job is done and reported. False if already draining.

        deadline_s: it exits after this many seconds in any case; the rest continues at the next start. Raises ValueError.
        """
        return self._put_up("draining", "drain", reason, "deadline", deadline_s)

    def cancel(self, job_id: str, reason: str) -> bool:
        """Cancel a job. False if it is unknown or has ended."""
        done = self.queue.cancel(job_id, reason)
        self._note("cancel", job_id, reason, _said(done))
        return done

    def cancel_all(self, job_ids: list[str], reason: str) -> list[str]:
        """Cancel jobs, at most MAX_AT_ONCE; returns those that had not ended. Raises ValueError if there are more."""
        done = self.queue.cancel_all(_not_too_many(job_ids), reason)
        self._note_all("cancel", job_ids, done, reason)
        return done

    def retry(self, job_id: str) -> Job | None:
        """A new round of a failed or cancelled job. None if it is unknown or neither."""
        job = self.queue.retry(job_id)
        self._note("retry", job_id, None, _said(job is not None))
        return job

    def retry_all(self, job_ids: list[str], reason: str | None = None) -> list[str]:
        """New rounds of jobs, at most MAX_AT_ONCE; returns those that were failed or cancelled. Raises ValueError."""
        done = [job.id for job in self.queue.retry_all(_not_too_many(job_ids))]
        self._note_all("retry", job_ids, done, reason)
        return done

    def discard_all(self, job_ids: list[str], reason: str) -> list[str]:
        """Delete the files of jobs, at most MAX_AT_ONCE; returns those that have ended. The poller does it within seconds, but
        never before a job's end is acknowledged. Raises ValueError if there are more."""
        jobs = [self.queue.get(job_id) for job_id in _not_too_many(job_ids)]
        done = [job.id for job in jobs if job is not None and job.finished]
        self.control.ask_discard(done)
        self._note_all("delete files", job_ids, done, reason)
        return done

    def again(self, job: Job, data_dir: Path) -> Job:
        """Add a local copy of this job, reported to nobody: with its files if they are still here, otherwise its links.
        Raises ValueError by field."""
        links = intake.LINKS[job.engine]
        here = {name: file for name in links if (file := spool.input_file(data_dir, job.id, name)).is_file()}
        payload = job.inputs | {name: str(file) for name, file in here.items()}
        payload |= {"musetalk_job_id": f"test-{secrets.token_hex(4)}"} | ({"params": job.params} if job.params else {})
        return self.submit(payload, job.engine, data_dir, "run as a test")

    def submit(self, payload: dict[str, Any], engine: str, data_dir: Path, action: str = "submit") -> Job:
        """Add a local job. Inputs may be links or file paths; files are copied. Raises ValueError by field."""
        payload = {"musetalk_job_id": f"local-{secrets.token_hex(4)}", **payload}
        copies = {name: copy for name in intake.LINKS[engine] if (copy := _copy_of(payload.get(name), data_dir))}
        payload |= {name: target.as_uri() for name, (_, target) in copies.items()}
        wrong = intake.problems(payload, engine, local=True)
        if wrong:
            raise ValueError("; ".join(f"{name}: {text}" for name, text in wrong.items()))
        known = self.queue.get(payload["musetalk_job_id"])
        if known is not None and known.source != "local":
            raise ValueError(f"musetalk_job_id: {known.id} belongs to a job that someone else is waiting for; leave it out")
        _make(list(copies.values()))  # last: a rejected job leaves nothing behind
        job, _ = self.queue.add(intake.new_job(payload, engine, "local"))
        self._note(action, job.id, None, "done")
        return job

    def sample(self, engine: str, data_dir: Path, **fields: Any) -> Job:
        """Add the sample job, which tests the whole pipeline in a minute; `fields` replace its own. Raises ValueError if its
        files are gone."""
        files = {field: str(SAMPLES / name) for field, name in SAMPLE[engine].items()}
        payload = {"musetalk_job_id": f"sample-{secrets.token_hex(4)}", **files, **SAMPLE_WORDS[engine], **fields}
        return self.submit(payload, engine, data_dir, "sample job")

    def restart(self, program: str, run_dir: Path, reason: str, after_job: bool = False) -> bool:
        """Restart a program: now, or after its current job. False if that was already requested.

        With "now" its current job starts over. Raises ValueError for a program not in RESTARTABLE, and
        supervision.NotRunning.
        """
        if program not in RESTARTABLE:
            raise ValueError(f"{program[:40]!r} cannot be restarted; must be one of {', '.join(RESTARTABLE)}")
        if after_job and self.busy(program):
            pid = next((found.pid for found in supervision.programs(run_dir) if found.name == program), None)
            changed = self.control.ask_restart(program, reason, self.actor, pid)
            self._note("restart", program, reason, "requested, after its job" if changed else "nothing to do")
            return changed
        try:
            supervision.restart(run_dir, program)
        except supervision.NotRunning as error:
            self._note("restart", program, reason, f"failed: {error}")
            raise
        self.control.end_restart(program)
        self._note("restart", program, reason, "done")
        return True

    def busy(self, program: str) -> list[str]:
        """The ids of the jobs that a program is working on."""
        return [job.id for job in self.queue.unfinished() if (job.owner or "").split("/")[0] == program]

    def settle(self, run_dir: Path) -> None:
        """Do what is due: end expired pauses, and restart programs whose job is done. The guard calls this."""
        for flag in self.control.lapsed().values():
            self._note("resume", None, f"the pause expired: {flag['reason']}", "done")
            self.queue.bell.poke(*EVERYONE)
        waiting = self.control.restarts()
        pids = {program.name: program.pid for program in supervision.programs(run_dir)} if waiting else {}
        for program, asked in waiting.items():
            if pids.get(program) == asked["pid"] and self.busy(program):
                continue
            if pids.get(program) == asked["pid"]:
                supervision.restart(run_dir, program)
            self.control.end_restart(program)
            self._note("restart", program, asked["reason"], f"done, requested by {asked['by']}")
            self.queue.bell.poke(*EVERYONE)

    def sign_out_all(self) -> None:
        """End every session of the page."""
        self.control.end_sessions()
        self._note("sign out everywhere", None, None, "done")

    def token(self, data_dir: Path) -> str | None:
        """The generated password of the page; None if there is none. The request is noted."""
        kept = entrance.kept_token(data_dir)
        self._note("show the token", None, None, _said(kept is not None))
        return kept

    def replace_token(self, data_dir: Path) -> None:
        """Replace the generated password of the page. Every session ends, and unused login links stop working."""
        entrance.make_token(data_dir)
        self.control.end_sessions()
        self.control.offer_login("", 0.0)  # invalidates a link
        self._note("replace the token", None, None, "done")

    def login_link(self, base_url: str) -> str:
        """A link that logs in to the page at base_url once, within LOGIN_LINK_S. Older links stop working.

        The code is in the fragment, so that no server, log or Referer ever sees it.
        """
        code = entrance.new_code()
        self.control.offer_login(entrance.login_hash(code), time.time() + LOGIN_LINK_S)
        self._note("login link", None, None, "done")
        return f"{base_url.rstrip('/')}/login#code={code}"

    def _put_up(self, flag: Flag, action: str, reason: str, end: str, seconds: float | None) -> bool:
        if seconds is not None and not MIN_S <= seconds <= MAX_S:
            raise ValueError(f"{seconds:g} s: must be a time from {MIN_S:g} s to {MAX_S / 86400:g} days")
        changed = self.control.put_up(flag, reason, self.actor, **({} if seconds is None else {end: seconds}))
        ends = "" if seconds is None else f", {end} {self.control.flags().get(flag, {}).get(end)}"
        self._note(action, None, reason, f"done{ends}" if changed else "nothing to do")
        self.queue.bell.poke(*EVERYONE)
        return changed

    def _take_down(self, flag: Flag, action: str) -> bool:
        changed = self.control.take_down(flag)
        if changed:
            self._note(action, None, None, "done")
        self.queue.bell.poke(*EVERYONE)
        return changed

    def _note(self, action: str, target: str | None, reason: str | None, result: str) -> None:
        self.control.note(self.actor, action, target, reason, result)

    def _note_all(self, action: str, job_ids: list[str], done: list[str], reason: str | None) -> None:
        changed = set(done)
        results = {job_id: _said(job_id in changed) for job_id in job_ids}
        self.control.note_all(self.actor, action, results, reason)


def _said(changed: bool) -> str:
    return "done" if changed else "nothing to do"


def _not_too_many(job_ids: list[str]) -> list[str]:
    if len(job_ids) > MAX_AT_ONCE:
        raise ValueError(f"{len(job_ids)} jobs; at most {MAX_AT_ONCE} at once")
    return job_ids


def incoming(data_dir: Path) -> Path:
    """Where submitted files wait for the poller; a file link may point nowhere else."""
    return data_dir / "incoming"


def _copy_of(value: Any, data_dir: Path) -> tuple[Path, Path] | None:
    """A file, and the path of its copy for the poller; None if the value is a link, or neither."""
    if not value or not isinstance(value, str) or "://" in value:
        return None
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"{value}: no such file")
    return path, incoming(data_dir) / (secrets.token_hex(8) + path.suffix.lower())


def _make(copies: list[tuple[Path, Path]]) -> None:
    """Copy the files, all or none."""
    try:
        for source, target in copies:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            spool.sync(target)
    except OSError:
        for _, target in copies:
            target.unlink(missing_ok=True)
        raise
