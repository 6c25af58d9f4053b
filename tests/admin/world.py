"""What stands around the page in a test: a real supervisord with small programs, where the page looks for it; and logs."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import settings
from tests.guard.supervised import Supervised, supervised

PROGRAMS = dict.fromkeys(("poller", "inference", "uploader", "api", "admin"), "steady.py")


@contextlib.contextmanager
def supervisord(data_dir: Path, programs: dict[str, str] | None = None, extra: str = "") -> Iterator[Supervised]:
    """supervisord for the page of this data folder."""
    run_dir = settings.load({"DATA_DIR": str(data_dir)}).run_dir
    with tempfile.TemporaryDirectory(prefix="w-") as path, supervised(Path(path), programs or PROGRAMS, extra=extra) as started:
        run_dir.symlink_to(Path(path) / "run")
        try:
            for name, file in (programs or PROGRAMS).items():
                if file == "steady.py":
                    started.running_pid(name)
            yield started
        finally:
            run_dir.unlink()


def say(data_dir: Path, event: str, name: str = "inference", level: str = "info", **bound: str) -> None:
    """A line in a program's log."""
    (data_dir / "logs").mkdir(exist_ok=True)
    line = {"at": "2026-01-02T03:04:05.678Z", "program": name, "level": level, "event": event, **bound}
    with (data_dir / "logs" / f"{name}.log").open("a") as log:
        log.write(json.dumps(line) + "\n")
