"""The findings of `worker doctor`: one line per subject, and what to do about it. Types only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from settings import Settings
from supervision import Program

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """said: what was seen, with its numbers. do: how to fix it, empty if nothing is wrong. lines: details for people."""

    name: str
    level: Level
    said: str
    do: str = ""
    lines: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What several checks share. cards, health: from `telemetry.gpu`. programs: None if the worker is not running."""

    settings: Settings
    cards: list[dict[str, Any]]
    programs: list[Program] | None
    health: list[dict[str, Any]] = field(default_factory=list)

    @property
    def needs_card(self) -> bool:
        """Whether the engine needs a GPU. Nothing is known about a custom engine."""
        return self.settings.ENGINE in ("musetalk", "fastwan")
