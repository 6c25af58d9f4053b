"""Who may come in: the secret or a one-time code, and log-ins of which only hashes are kept.

A log-in's hash hangs on the secret: a new password ends every log-in. Guesses are counted before any secret is looked at.
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

from jobqueue import spool
from jobqueue.control import Control
from operations import login_hash

#: A log-in ends after this long without a look, and after this long in any case, in seconds.
IDLE_S = 12 * 3600.0
LONGEST_S = 7 * 24 * 3600.0
TOUCH_EVERY_S = 300.0
#: Log-ins a minute: of one address, and of all.
LOGINS_EACH, LOGINS_ALL = 10, 60


class Access:
    """Log-ins to one worker's page. secret: its password or token, never empty."""

    def __init__(self, secret: str, control: Control) -> None:
        self._secret, self._control = secret, control

    def enter(self, given: str, address: str, agent: str) -> str | None:
        """A new log-in's id if what was given is the secret or the one-time code (which is then used up); None if not."""
        key = secrets.token_bytes(16)  # digests of one length: a guess takes the same time however long it is
        right, guess = (hmac.digest(key, text.encode(errors="replace"), "sha256") for text in (self._secret, given))
        now = time.time()
        if not hmac.compare_digest(right, guess) and not self._control.use_login(login_hash(given[:40]), now):
            return None
        self._control.forget_sessions(now - LONGEST_S, now - IDLE_S)
        session = secrets.token_urlsafe(32)
        self._control.begin_session(self.hashed(session), address, agent, now)
        return session

    def holds(self, session: str) -> bool:
        """Whether this log-in is good. A look is noted every few minutes, so that it does not end under the operator."""
        hashed, now = self.hashed(session), time.time()
        row = self._control.session(hashed)
        if row is None or now - row["seen_at"] > IDLE_S or now - row["created_at"] > LONGEST_S:
            return False
        if now - row["seen_at"] > TOUCH_EVERY_S:
            self._control.touch_session(hashed, now)
        return True

    def leave(self, session: str) -> None:
        """End this log-in."""
        self._control.end_sessions(self.hashed(session))

    def hashed(self, session: str) -> str:
        """What is kept of a log-in's id."""
        return hmac.new(self._secret.encode(), session.encode(errors="replace"), hashlib.sha256).hexdigest()


class Limiter:
    """At most so many log-ins a minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Count a try; False if there were too many."""
        now = time.monotonic()
        with self._lock:
            while self._seen and self._seen[0][0] < now - 60:
                self._seen.popleft()
            mine = sum(1 for _, other in self._seen if other == address)
            if mine >= LOGINS_EACH or len(self._seen) >= LOGINS_ALL:
                return False
            self._seen.append((now, address))
            return True


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
