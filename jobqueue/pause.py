"""How long to wait before the next try: exponential back-off with jitter, so that a fleet does not come back as one."""

from __future__ import annotations

import random

FIRST_S = 1.0
LONGEST_S = 60.0


def before_try(tries: int) -> float:
    """Seconds to wait after `tries` failures (1 or more)."""
    ceiling = min(LONGEST_S, FIRST_S * 2.0 ** min(max(tries - 1, 0), 10))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
