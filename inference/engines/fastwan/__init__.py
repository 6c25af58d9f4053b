"""FastWan 2.2 TI2V 5B: an image becomes the first frame of a short video that follows a prompt.

See docs/fastwan.md. Importing the package loads no library; asking it for the `Engine` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.engines.fastwan.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from inference.engines.fastwan.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
