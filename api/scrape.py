"""The content of /metrics: read from the queue at each scrape; what cannot be read is omitted."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.health import Probes, Seen, fresh, not_loaded
from jobqueue import intake
from jobqueue.control import closed
from jobqueue.database import DatabaseError
from jobqueue.job import FINISHED, WAITING, WORKING
from jobqueue.outbox import Outbox
from telemetry import metrics


class Scrape:
    """Counts ended jobs from one scrape to the next: rows are trimmed, but a counter may not decrease."""

    def __init__(self, outbox: Outbox, data_dir: Path, probes: Probes) -> None:
        self._outbox, self._data_dir, self._probes = outbox, data_dir, probes
        self._lock = threading.Lock()
        kind = intake.shape(probes.engine)
        self._ended: Counter[tuple[str, str]] = Counter({(kind, state): 0 for state in FINISHED})
        self._newest, _ = outbox.ended(None)

    def text(self) -> bytes:
        """The page in Prometheus format."""
        return metrics.text(metrics.Facts(version=self._probes.version, model=self._probes.engine, **self._known()))

    def _known(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"disk_free_bytes": _free_bytes(self._data_dir)}
        try:
            seen = self._probes.look()
            self._count()
        except DatabaseError:
            return facts
        in_state = {state: seen.counts.get(state, 0) for state in WAITING | WORKING | FINISHED}
        poller = fresh(seen.published, "poller")
        orchestrator = poller.get("orchestrator") or {}
        return facts | {
            "mode": _mode(seen),
            "jobs_in_state": in_state,
            "jobs_ended": dict(self._ended),
            "upload_pending": in_state["generated"] + in_state["uploading"],
            "orchestrator_up": orchestrator.get("ok"),
            "heartbeat_age_s": _age_s(orchestrator.get("at")),
            "gpus": poller.get("gpus") or [],
        }

    def _count(self) -> None:
        with self._lock:
            newest, ends = self._outbox.ended(self._newest)
            self._newest = newest
            self._ended.update(ends)


def _mode(seen: Seen) -> str:
    return closed(seen.flags) or ("starting" if not_loaded(seen) else "active")


def _age_s(at: str | None) -> float | None:
    if at is None:
        return None
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())


def _free_bytes(data_dir: Path) -> int | None:
    try:
        return shutil.disk_usage(data_dir).free
    except OSError:
        return None
