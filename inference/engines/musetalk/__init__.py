"""MuseTalk, built anew around its published weights: a person's video or still, and speech, become the person saying it.

See docs/musetalk.md. Importing the package loads no library: `missing` must answer on machines that have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference.engines.musetalk.layout import missing

if TYPE_CHECKING:
    from inference.engines.musetalk.engine import Engine

__all__ = ["Engine", "missing"]


def __getattr__(name: str) -> Any:
    """The engine itself, with all that it needs, when it is asked for."""
    if name == "Engine":
        from inference.engines.musetalk.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
