"""What an operator can do, each with its audit row: the page, the JSON API and the command line are three skins of it."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqueue import intake, spool
from jobqueue.control import Control
from jobqueue.job import Job
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from jobqueue.wake import EVERYONE

#: How long a log-in link of the page works, in seconds.
LOGIN_LINK_S = 15 * 60
#: Letters and digits that nobody mistakes for one another; 8 of them are 40 bits.
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Who acts (`cli:root`, `web:1a2b`), on which queue."""

    actor: str
    queue: Queue
    control: Control
    outbox: Outbox

    def pause(self, reason: str) -> bool:
        """Stop claiming and starting; what runs is finished, uploads and reports go on. False if it was paused already."""
        return self._flag("paused", True, reason, "pause")

    def resume(self) -> bool:
        """End a pause or a drain. False if there was neither."""
        lowered = [self._flag("paused", False, None, "resume"), self._flag("draining", False, None, "stop draining")]
        return any(lowered)

    def drain(self, reason: str) -> bool:
        """Stop claiming; the container ends when all is done and reported. False if it was draining already."""
        return self._flag("draining", True, reason, "drain")

    def cancel(self, job_id: str, reason: str) -> bool:
        """Ask for a job to end. False if it is unknown or over."""
        done = self.queue.cancel(job_id, reason)
        self._note("cancel", job_id, reason, done)
        return done

    def retry(self, job_id: str) -> Job | None:
        """A new round of a failed or cancelled job. None if it is unknown or neither."""
        job = self.queue.retry(job_id)
        self._note("retry", job_id, None, job is not None)
        return job

    def submit(self, payload: dict[str, Any], engine: str, data_dir: Path) -> Job:
        """Add a job of one's own. Inputs may be links or paths of files; files are copied. Raises ValueError by field."""
        payload = {"musetalk_job_id": f"local-{secrets.token_hex(4)}", **payload}
        payload |= {name: _taken_in(payload[name], data_dir) for name in intake.LINKS[engine] if payload.get(name)}
        wrong = intake.problems(payload, engine, local=True)
        if wrong:
            raise ValueError("; ".join(f"{name}: {text}" for name, text in wrong.items()))
        job, _ = self.queue.add(intake.new_job(payload, engine, "local"))
        self._note("submit", job.id, None, True)
        return job

    def login_link(self, base_url: str) -> str:
        """A link that logs in to the page at base_url once, within LOGIN_LINK_S. An older link stops working.

        The code stands behind the #, so that no server, log or Referer ever sees it.
        """
        code = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        self.control.offer_login(login_hash(code), time.time() + LOGIN_LINK_S)
        self._note("login link", None, None, True)
        return f"{base_url.rstrip('/')}/login#code={code[:4]}-{code[4:]}"

    def _flag(self, name: Any, up: bool, reason: str | None, action: str) -> bool:
        changed = self.control.put_up(name, reason or "", self.actor) if up else self.control.take_down(name)
        if changed or up:
            self._note(action, None, reason, changed)
        self.queue.bell.poke(*EVERYONE)
        return changed

    def _note(self, action: str, target: str | None, reason: str | None, changed: bool) -> None:
        self.control.note(self.actor, action, target, reason, "done" if changed else "nothing to do")


def login_hash(code: str) -> str:
    """What is kept of a log-in code, however it was typed."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()


def incoming(data_dir: Path) -> Path:
    """Where files that an operator hands in wait for the poller; a file link may point nowhere else."""
    return data_dir / "incoming"


def _taken_in(value: str, data_dir: Path) -> str:
    if "://" in value:
        return value
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"{value}: there is no such file")
    folder = incoming(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (secrets.token_hex(8) + path.suffix.lower())
    shutil.copyfile(path, target)
    spool.sync(target)
    return target.as_uri()
