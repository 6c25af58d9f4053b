"""Exponential back-off with jitter, so that a fleet does not retry in step."""

from __future__ import annotations

import random

FIRST_S = 1.0
MAX_S = 60.0


def before_try(tries: int, first_s: float = FIRST_S, max_s: float = MAX_S) -> float:
    """Seconds to wait after `tries` failures (1 or more): at most first_s after the first, doubling each time."""
    ceiling = min(max_s, first_s * 2.0 ** min(max(tries - 1, 0), 10))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
