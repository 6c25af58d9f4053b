"""What `worker doctor` finds: one line a subject, and what to do about it. Types alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from settings import Settings
from supervision import Program

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """said: what was seen, with its numbers. do: how to mend it, empty if all is well. lines: more of it, for people."""

    name: str
    level: Level
    said: str
    do: str = ""
    lines: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What several checks look at. cards, health: as `telemetry.gpu` gives them. programs: None: the worker does not run."""

    settings: Settings
    cards: list[dict[str, Any]]
    programs: list[Program] | None
    health: list[dict[str, Any]] = field(default_factory=list)

    @property
    def needs_card(self) -> bool:
        """Whether the engine is one that works on a GPU. Of an engine of one's own nothing is known."""
        return self.settings.ENGINE in ("musetalk", "fastwan")
