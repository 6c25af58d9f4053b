"""What opens the operator's page: the token that the worker makes where no password was set, and codes that log in once.

Knows nothing of who is in (`jobqueue.control`), nor of what they may do (`admin.access`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from jobqueue import spool

#: Letters and digits that nobody mistakes for one another; 8 of them are 40 bits.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def kept_token(data_dir: Path) -> str | None:
    """The token; None: it has not been made."""
    try:
        return _file(data_dir).read_text().strip() or None
    except FileNotFoundError:
        return None


def make_token(data_dir: Path) -> str:
    """A new token, for its owner's eyes only. The file appears whole or not at all: an empty one would let anybody in."""
    file = _file(data_dir)
    token, aside = secrets.token_urlsafe(24), file.with_name(f".admin_token-{secrets.token_hex(4)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(token + "\n")
    spool.keep(aside, file)
    return token


def new_code() -> str:
    """A code as it is shown, like 7KQ2-MX4P."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"{code[:4]}-{code[4:]}"


def login_hash(code: str) -> str:
    """What is kept of a code, however it was typed."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()


def _file(data_dir: Path) -> Path:
    return data_dir / "admin_token"
