"""MuseTalk, built anew around its published weights: a person's video or still, and speech, become the person saying it.

See docs/musetalk.md. Importing the package loads no library; asking it for the `Engine` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.engines.musetalk.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from inference.engines.musetalk.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
