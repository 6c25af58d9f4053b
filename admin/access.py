"""Who may come in, and whether to act or only to look: a secret or a one-time code, and log-ins of which only hashes are kept.

A log-in's hash hangs on the secret that began it: a new one ends every log-in of the old, and says what it may do. Guesses are
counted before any secret is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from pathlib import Path
from typing import Literal

from jobqueue import spool
from jobqueue.control import Control
from operations import login_hash

#: What somebody may do here.
Role = Literal["act", "look"]
#: A log-in ends after this long without a look, and after this long in any case, in seconds.
IDLE_S = 12 * 3600.0
LONGEST_S = 7 * 24 * 3600.0
TOUCH_EVERY_S = 300.0
#: Log-ins a minute: of one address, and of all.
LOGINS_EACH, LOGINS_ALL = 10, 60


class Access:
    """Log-ins to one worker's page. secret: its password or token; view_secret: lets in to look only, None: nobody."""

    def __init__(self, secret: str, control: Control, view_secret: str | None = None) -> None:
        self._control = control
        self._secrets: dict[Role, str] = {"act": secret, **({"look": view_secret} if view_secret else {})}

    def role(self, given: str) -> Role | None:
        """What the secret that was given allows; None if it is none."""
        key = secrets.token_bytes(16)  # digests of one length: a guess takes the same time however long it is
        guess = hmac.digest(key, given.encode(errors="replace"), "sha256")
        right = {role: hmac.digest(key, secret.encode(), "sha256") for role, secret in self._secrets.items()}
        return next((role for role, digest in right.items() if hmac.compare_digest(digest, guess)), None)

    def enter(self, given: str, address: str, agent: str) -> str | None:
        """A new log-in's id if what was given is a secret or the one-time code (which is then used up); None if not."""
        now = time.time()
        role = self.role(given) or ("act" if self._control.use_login(login_hash(given[:40]), now) else None)
        if role is None:
            return None
        self._control.forget_sessions(now - LONGEST_S, now - IDLE_S)
        session = secrets.token_urlsafe(32)
        self._control.begin_session(self.hashed(session, role), address, agent, now)
        return session

    def holds(self, session: str) -> Role | None:
        """What this log-in allows, None if it is over. A look is noted every few minutes, so that it does not end under the
        operator."""
        now = time.time()
        for role in self._secrets:
            row = self._control.session(self.hashed(session, role))
            if row is None or now - row["seen_at"] > IDLE_S or now - row["created_at"] > LONGEST_S:
                continue
            if now - row["seen_at"] > TOUCH_EVERY_S:
                self._control.touch_session(row["hash"], now)
            return role
        return None

    def leave(self, session: str) -> None:
        """End this log-in."""
        for role in self._secrets:
            self._control.end_sessions(self.hashed(session, role))

    def hashed(self, session: str, role: Role) -> str:
        """What is kept of a log-in's id."""
        return hmac.new(self._secrets[role].encode(), session.encode(errors="replace"), hashlib.sha256).hexdigest()


class Limiter:
    """At most so many tries a minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Count a try; False if there were too many."""
        with self._lock:
            if self._is_full(address):
                return False
            self._seen.append((time.monotonic(), address))
            return True

    def is_full(self, address: str) -> bool:
        """Whether there were too many tries lately; counts none."""
        with self._lock:
            return self._is_full(address)

    def _is_full(self, address: str) -> bool:
        now = time.monotonic()
        while self._seen and self._seen[0][0] < now - 60:
            self._seen.popleft()
        mine = sum(1 for _, other in self._seen if other == address)
        return mine >= LOGINS_EACH or len(self._seen) >= LOGINS_ALL


def secret_of(password: str | None, data_dir: Path) -> str:
    """What lets an operator in: the password, else a token of our own, made once and kept for the owner's eyes only.

    The token's file appears whole or not at all: an empty one would let in whoever says nothing.
    """
    if password:
        return password
    file = data_dir / "admin_token"
    if file.is_file() and (kept := file.read_text().strip()):
        return kept
    token, aside = secrets.token_urlsafe(24), file.with_name(f".admin_token-{secrets.token_hex(4)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as new:
        new.write(token + "\n")
    spool.keep(aside, file)
    return token
