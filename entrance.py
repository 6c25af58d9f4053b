"""Credentials of the operator's page: the token generated if no password is set, and one-time login codes.

Sessions are in `jobqueue.control`, permissions in `admin.access`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from jobqueue import spool

#: Unambiguous letters and digits; 8 of them are 40 bits.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def kept_token(data_dir: Path) -> str | None:
    """The token; None if there is none yet."""
    try:
        return _file(data_dir).read_text().strip() or None
    except FileNotFoundError:
        return None


def make_token(data_dir: Path) -> str:
    """A new token, readable by its owner only. The file appears complete or not at all: an empty one would let anyone in."""
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
    """The stored hash of a code, however it was typed."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()


def _file(data_dir: Path) -> Path:
    return data_dir / "admin_token"
