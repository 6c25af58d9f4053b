"""The driver's error reports, called XIDs by NVIDIA: records them, and explains the known ones.

They arrive as NVML events, which any process that sees the card may read. The kernel's log has them too, but containers do
not see it, and on most systems reading it requires privileges. Reports from before the first check are not available, and
under WSL there are no events at all.
Meanings and remedies follow NVIDIA's "XID Errors" manual (docs.nvidia.com/deploy/xid-errors), in our words.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger(__name__)

#: How long a check waits for a report, in milliseconds: an existing one is returned at once.
WAIT_MS = 1
#: Maximum number of reports per check: a failing card may send hundreds.
MAX_EVENTS = 64


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """said: what the report means. do: the remedy. harmless: to the card; a program that used it is at fault, or was killed."""

    said: str
    do: str
    harmless: bool = False


_AGAIN = "nothing, unless it keeps happening: then install another driver, or have the card checked"
_RESET = "stop the worker and reset the card (nvidia-smi --gpu-reset), or reboot the machine"
_MEMORY = "reboot the machine, to retire the bad memory; if it happens again, replace the card"
_LINK = "reboot the machine; if it happens again, check the card's power cables, seating and riser, and the power supply"
_DRIVER = "reset the card, or reboot the machine; if it happens again, install another driver"

MEANINGS = {
    8: Meaning(said="the card stopped processing a program's commands", do=_AGAIN),
    13: Meaning(said="a program caused a fault of the card's engine, usually by a bug", do=_AGAIN, harmless=True),
    31: Meaning(said="a program accessed GPU memory that is not its own, usually by a bug", do=_AGAIN, harmless=True),
    32: Meaning(said="the card received invalid commands", do=_AGAIN, harmless=True),
    38: Meaning(said="the driver's firmware failed", do=_DRIVER),
    43: Meaning(said="a program's fault ended its work; the card itself is fine", do=_AGAIN, harmless=True),
    45: Meaning(said="a program's work was cleaned up after it was killed or failed", do=_AGAIN, harmless=True),
    46: Meaning(said="the card stopped working", do=_RESET),
    48: Meaning(said="uncorrectable memory error", do=_MEMORY),
    61: Meaning(said="one of the card's microcontrollers halted on a fault", do=_RESET),
    62: Meaning(said="the card's power controller has halted", do=_RESET),
    63: Meaning(said="bad memory was recorded, to be retired", do="reboot the machine when convenient, to retire it"),
    64: Meaning(said="bad memory could not be recorded", do="reboot the machine; if it happens again, replace the card"),
    69: Meaning(said="a program caused a fault of the card's engine", do=_AGAIN, harmless=True),
    74: Meaning(said="the NVLink between cards failed", do="reset the cards; if it happens again, check their bridge"),
    79: Meaning(said="the card has fallen off the bus: the machine can no longer reach it", do=_LINK),
    92: Meaning(said="unusually many correctable memory errors", do=_MEMORY),
    94: Meaning(said="a memory error affected one program only, which was killed", do=_MEMORY),
    95: Meaning(said="a memory error may have affected every program on the card", do=f"{_RESET}; its results may be wrong"),
    109: Meaning(said="the card could not switch between programs in time", do=_RESET),
    110: Meaning(said="the card shut down after a security fault", do=_RESET),
    119: Meaning(said="the card's own processor (GSP) did not answer the driver", do=_DRIVER),
    120: Meaning(said="the card's own processor (GSP) failed", do=_DRIVER),
    140: Meaning(said="a memory error from which the card did not recover", do=_MEMORY),
    143: Meaning(said="the card could not be started", do=_RESET),
    154: Meaning(said="the driver says that the card needs a reset, or the machine a reboot", do=_RESET),
}
_UNKNOWN = Meaning(said="an error that is not in our list", do="look it up in NVIDIA's XID manual, or in dmesg on the host")


def meaning(code: int) -> Meaning:
    """What a report means; also for unknown codes."""
    return MEANINGS.get(code, _UNKNOWN)


class Events:
    """The newest report of each card. One thread at a time calls its methods, except `of`; they never raise."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}
        self.begin()

    def begin(self) -> None:
        """The library has been opened: nothing is watched yet, and an older event set, or the parent's, is invalid."""
        self._set: Any = None  # NVML's
        self._watched: dict[int | None, str] = {}  # UUIDs by the handles' addresses
        self._refused: set[str] = set()

    def of(self, uuid: str | None) -> dict[str, Any]:
        """What is known about a card, for `gpu.health`."""
        return {"xid": self._last.get(uuid or ""), "xid_watched": uuid in self._watched.values()}

    def watch(self, pynvml: Any, handle: Any, uuid: str) -> None:
        """Record the card's reports from now on, if the driver supports that."""
        address = _address(handle)
        if self._watched.get(address) == uuid or uuid in self._refused:
            return
        try:
            if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & pynvml.nvmlEventTypeXidCriticalError:
                self._refused.add(uuid)
                return
            self._set = self._set or pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._set)
        except pynvml.NVMLError as error:
            log.debug("%s does not support events: %s", uuid, error)
            self._refused.add(uuid)
        else:
            self._watched[address] = uuid

    def take_in(self, pynvml: Any) -> None:
        """Record what has been reported since the last check."""
        for _ in range(MAX_EVENTS if self._watched else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, WAIT_MS)
            except pynvml.NVMLError:  # none is left; if a card is lost, the next call will show it
                return
            uuid, code = self._watched.get(_address(event.device)), int(event.eventData)
            if uuid is None or event.eventType != pynvml.nvmlEventTypeXidCriticalError:
                continue
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._last[uuid] = {"code": code, "at": at}
            log.warning("the driver reported XID %d of %s: %s", code, uuid, meaning(code).said)

    def end(self, pynvml: Any) -> None:
        """The library is about to be closed, and the event set with it. Recorded reports are kept."""
        if self._set is not None:
            try:
                pynvml.nvmlEventSetFree(self._set)
            except pynvml.NVMLError as error:
                log.debug("NVML did not free its events: %s", error)
        self.begin()


def _address(handle: Any) -> int | None:
    """What all handles of one card share."""
    return ctypes.cast(handle, ctypes.c_void_p).value
