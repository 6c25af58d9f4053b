"""Has no weights."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "cannot_load"

    @staticmethod
    def missing(models: Path) -> list[str]:
        return ["unet.pth"]
