"""Authentication, and whether a session may act or only read: passwords, one-time codes, and sessions stored as hashes.

A session's hash depends on the secret that started it: a new secret ends all sessions of the old one, and determines what
they may do. Attempts are rate-limited before any secret is compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from entrance import kept_token, login_hash, make_token
from jobqueue.control import IDLE_S, MAX_SESSION_S, Control

#: The permissions.
Role = Literal["act", "look"]
#: How often the last use of a session is recorded, in seconds.
TOUCH_EVERY_S = 300.0
#: Logins per minute: from one address, and in total.
LOGINS_EACH, LOGINS_ALL = 10, 60
#: Refused logins that get their own row in the audit trail, per this many seconds.
REFUSED_EACH, REFUSED_IN_S = 10, 3600.0


class Access:
    """Logins to one worker's page. secret: returns its password or token; view_secret: for read-only access, None: none."""

    def __init__(self, secret: Callable[[], str], control: Control, view_secret: str | None = None) -> None:
        self._secret, self._view_secret, self._control = secret, view_secret, control

    def role(self, given: str) -> Role | None:
        """What the given secret allows; None if it is wrong."""
        key = secrets.token_bytes(16)  # digests of one length: a guess takes the same time however long it is
        guess = hmac.digest(key, given.encode(errors="replace"), "sha256")
        right = {role: hmac.digest(key, secret.encode(), "sha256") for role, secret in self._secrets().items()}
        return next((role for role, digest in right.items() if hmac.compare_digest(digest, guess)), None)

    def enter(self, given: str, address: str, agent: str) -> str | None:
        """A new session's id if the input is a secret or the one-time code (which is then used up); otherwise None."""
        now = time.time()
        role = self.role(given) or ("act" if self._control.use_login(login_hash(given[:40]), now) else None)
        if role is None:
            return None
        self._control.forget_sessions(now)
        session = secrets.token_urlsafe(32)
        self._control.begin_session(self.hashed(session, role), address, agent, now)
        return session

    def holds(self, session: str) -> Role | None:
        """What this session allows, None if it has ended. Its use is recorded every few minutes, so that it does not
        expire while in use."""
        now = time.time()
        for role in self._secrets():
            row = self._control.session(self.hashed(session, role))
            if row is None or now - row["seen_at"] > IDLE_S or now - row["created_at"] > MAX_SESSION_S:
                continue
            if now - row["seen_at"] > TOUCH_EVERY_S:
                self._control.touch_session(row["hash"], now)
            return role
        return None

    def leave(self, session: str) -> None:
        """End this session."""
        for role in self._secrets():
            self._control.end_sessions(self.hashed(session, role))

    def hashed(self, session: str, role: Role) -> str:
        """The stored hash of a session id."""
        return hmac.new(self._secrets()[role].encode(), session.encode(errors="replace"), hashlib.sha256).hexdigest()

    def _secrets(self) -> dict[Role, str]:
        return {"act": self._secret(), **({"look": self._view_secret} if self._view_secret else {})}


class Secret:
    """What lets an operator act: the password that was set, else a token of the worker's own, made if there is none.

    The token is read at each use, because an operator may replace it; `known` is what was read last.
    """

    def __init__(self, password: str | None, data_dir: Path) -> None:
        self._is_set, self._data_dir = bool(password), data_dir
        self.known: str = password or kept_token(data_dir) or make_token(data_dir)

    def __call__(self) -> str:
        if not self._is_set:
            with contextlib.suppress(OSError):  # nor does who removes the file open the door
                self.known = kept_token(self._data_dir) or self.known
        return self.known


class Limiter:
    """A limit on attempts per minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Count an attempt; False if there were too many."""
        with self._lock:
            if self._is_full(address):
                return False
            self._seen.append((time.monotonic(), address))
            return True

    def is_full(self, address: str) -> bool:
        """Whether there were too many recent attempts; counts nothing."""
        with self._lock:
            return self._is_full(address)

    def _is_full(self, address: str) -> bool:
        now = time.monotonic()
        while self._seen and self._seen[0][0] < now - 60:
            self._seen.popleft()
        mine = sum(1 for _, other in self._seen if other == address)
        return mine >= LOGINS_EACH or len(self._seen) >= LOGINS_ALL


class Refusals:
    """Which refused logins get a row in the audit trail, from which nothing is ever deleted.

    Strangers can make sixty per minute forever. So per hour the first ten get a row each, then the 20th, the 40th, the 80th and
    so on, with the count so far: at most eighteen rows, and no count to be lost when the process exits.
    """

    def __init__(self) -> None:
        self._since_s, self._count = float("-inf"), 0
        self._lock = threading.Lock()

    def said(self, now_s: float) -> str | None:
        """Count one; what its row says, None if it has none. now_s: monotonic."""
        with self._lock:
            if now_s - self._since_s >= REFUSED_IN_S:
                self._since_s, self._count = now_s, 0
            self._count += 1
            if self._count <= REFUSED_EACH:
                return "refused"
            tens, rest = divmod(self._count, REFUSED_EACH)
            return None if rest or tens & (tens - 1) else f"refused, as were {self._count - 1} others within the hour"
