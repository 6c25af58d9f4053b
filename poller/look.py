"""The data of the heartbeat, read in a separate loop, so that a busy queue or a hanging driver delays no heartbeat.

The same readings are published for the page and the command line, even without an orchestrator; plus the health of the cards,
which is not in the heartbeat.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from jobqueue import clock
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import Job
from jobqueue.queue import Queue
from poller.identity import Identity, News
from telemetry import gpu, host

log = logging.getLogger(__name__)

#: How often GPUs and host are read and published, in seconds.
EVERY_S = 5.0
#: Minimum interval between reactions to changes of jobs, in seconds.
MIN_PERIOD_S = 0.25

_NO_SYSTEM_INFO = dict.fromkeys(
    (
        *("cpu_cores_physical", "cpu_cores_logical", "cpu_model", "ram_total_gb", "ram_available_gb"),
        *("disk_total_gb", "disk_free_gb", "download_speed_mbps"),
    )
)


@dataclass(frozen=True, kw_only=True)
class View:
    """The last snapshot of the worker. `seen` is False until the queue has been read once."""

    seen: bool = False
    unfinished: tuple[Job, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    flags: dict[str, dict[str, Any]] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    gpus: list[dict[str, Any]] = field(default_factory=list)
    system_info: dict[str, Any] = field(default_factory=lambda: dict(_NO_SYSTEM_INFO))


class Look:
    """Holds the newest View; `loop` updates it."""

    def __init__(self, queue: Queue, control: Control, identity: Identity, news: News, every_s: float = EVERY_S) -> None:
        self._queue, self._control, self._identity, self._news = queue, control, identity, news
        self._every_s = min(every_s, EVERY_S)
        self._failing = False
        self.view = View()

    def loop(self, stop: threading.Event) -> None:
        """Update until `stop` is set: machine and queue every few seconds, the queue also when it changes."""
        next_whole = 0.0
        while not stop.is_set():
            mark = self._queue.bell.mark()
            whole = clock.now() >= next_whole
            if whole:
                next_whole = clock.now() + self._every_s
            try:
                self._look(whole)
            except ERRORS as error:
                self._failed(error)
            if not stop.wait(MIN_PERIOD_S):
                self._queue.bell.wait(mark, max(0.0, next_whole - clock.now()))

    def _look(self, whole: bool) -> None:
        if whole:
            self.view = replace(self.view, gpus=gpu.readings(self._identity.gpus), system_info=self._system_info())
            self._name_gpu()
        published = self._control.published()
        inference = published.get("inference", {})
        unfinished, counts = tuple(self._queue.unfinished()), self._queue.counts()
        self.view = replace(
            self.view, seen=True, unfinished=unfinished, counts=counts, flags=self._control.flags(), inference=inference
        )
        if whole:
            health = self._health(published.get("poller", {}).get("gpu_health") or [])
            self._control.publish("poller", {**self._published(), "gpu_health": health})
        self._failing = False

    def _system_info(self) -> dict[str, Any]:
        try:
            return host.system_info(self._identity.data_dir, self._news.download_speed_mbps)
        except OSError as error:  # the data folder's disk is gone
            log.warning("host readings failed: %s", error)
            return self.view.system_info

    def _health(self, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The health of the cards. The driver's last error report survives a restart of this program."""
        known = {card.get("uuid"): card.get("xid") for card in before}
        return [{**card, "xid": card["xid"] or known.get(card["uuid"])} for card in gpu.health(self._identity.gpus)]

    def _name_gpu(self) -> None:
        names = [card["name"] for card in self.view.gpus if card.get("name")]
        if self._identity.gpu_class or names:
            self._news.gpu_class = self._identity.gpu_class or names[0]

    def _published(self) -> dict[str, Any]:
        return {
            "gpus": self.view.gpus,
            "system_info": self.view.system_info,
            "orchestrator": self._news.orchestrator,
            "claim": self._news.claim,
        }

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            log.warning("the queue could not be read; heartbeats repeat the last known state: %s", error)
        self._failing = True
