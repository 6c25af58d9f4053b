"""The versions of a worker: its version and commit, engine, driver, libraries, weights. Read-only."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from jobqueue.database import library_version
from settings import VERSION, Settings
from telemetry import host
from weights import manifest

#: The distributions that say most about an installation.
TELLING = ("torch", "av", "opencv-python-headless", "diffusers", "transformers", "b2sdk", "flask", "gunicorn", "supervisor")
CHECKOUT = Path(__file__).resolve().parent.parent


def versions(settings: Settings, said: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By name, in display order. said: the last published status of each program."""
    card: dict[str, Any] = next(iter(said.get("poller", {}).get("gpus") or []), {})
    found = {
        "worker": VERSION,
        "commit": _commit(CHECKOUT / ".git"),
        "engine": said.get("inference", {}).get("engine"),
        "GPU driver": card.get("driver"),
        "Python": platform.python_version(),
        "SQLite": library_version(),
        "kernel": platform.release(),
        **{name: host.installed(name) for name in TELLING},
        "weights": _weights(settings),
    }
    return {name: str(value) for name, value in found.items() if value}


def _weights(settings: Settings) -> str:
    files = [file for file in manifest.ENGINES.get(settings.ENGINE, ()) if not file.optional]
    there = [file for file in files if (settings.models_dir / file.path).is_file()]
    return f"{len(there)} of {len(files)} files present" if files else ""


def _commit(folder: Path) -> str | None:
    """The commit of a checkout; an image has none."""
    try:
        head = (folder / "HEAD").read_text().strip()
        return (folder / head.removeprefix("ref: ")).read_text().strip()[:12] if head.startswith("ref: ") else head[:12]
    except OSError:
        return None
