"""An engine whose weights belong to another user."""

from __future__ import annotations

import errno
from pathlib import Path

from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "may_not_read"

    @staticmethod
    def missing(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "unet.pth"))
