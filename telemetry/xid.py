"""The driver's error reports, which NVIDIA calls XIDs: taken in as they come, and what the known ones mean.

They come through NVML's events, which any process that sees the card may ask for. The kernel's log has them too, but a
container is not shown it, and on most systems reading it needs a privilege. What was reported before the first look is not to
be had, and on Windows' Linux (WSL) there are no events at all.
Meanings and remedies are after NVIDIA's "XID Errors" manual (docs.nvidia.com/deploy/xid-errors), in our words.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger(__name__)

#: How long a look waits for a report, in milliseconds: one that has come is given at once.
WAIT_MS = 1
#: Reports taken in at one look: a card that fails may send hundreds.
MOST = 64


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """said: what the report means. do: what helps. harmless: to the card; a program that used it is at fault, or was ended."""

    said: str
    do: str
    harmless: bool = False


_AGAIN = "nothing, unless it comes again and again: then another driver, or have the card looked at"
_RESET = "stop the worker and reset the card (nvidia-smi --gpu-reset), or start the machine anew"
_MEMORY = "start the machine anew, so that the bad memory is put out of use; if it comes again, have the card changed"
_LINK = "start the machine anew; if it comes again, look at the card's power cables, seat and riser, and at the power supply"
_DRIVER = "reset the card, or start the machine anew; if it comes again, install another driver"

MEANINGS = {
    8: Meaning(said="the card stopped working on a program's commands", do=_AGAIN),
    13: Meaning(said="a program made the card's engine fault, mostly by its own mistake", do=_AGAIN, harmless=True),
    31: Meaning(
        said="a program used memory of the card that is not its own, mostly by its own mistake", do=_AGAIN, harmless=True
    ),
    32: Meaning(said="the card was sent commands that it could not read", do=_AGAIN, harmless=True),
    38: Meaning(said="the driver's firmware failed", do=_DRIVER),
    43: Meaning(said="a program's fault ended its work; the card itself is well", do=_AGAIN, harmless=True),
    45: Meaning(
        said="a program's work was cleared away, because it was ended or an earlier error ended it", do=_AGAIN, harmless=True
    ),
    46: Meaning(said="the card stopped working", do=_RESET),
    48: Meaning(said="memory held an error that could not be corrected", do=_MEMORY),
    61: Meaning(said="one of the card's small controllers stopped at a fault", do=_RESET),
    62: Meaning(said="the card's power controller has halted", do=_RESET),
    63: Meaning(
        said="bad memory was noted, to be put out of use", do="start the machine anew when it suits: then it is out of use"
    ),
    64: Meaning(said="bad memory could not be noted", do="start the machine anew; if it comes again, have the card changed"),
    69: Meaning(said="a program made the card's engine fault", do=_AGAIN, harmless=True),
    74: Meaning(said="the NVLink between cards failed", do="reset the cards; if it comes again, have their bridge looked at"),
    79: Meaning(said="the card has fallen off the bus: the machine no longer reaches it", do=_LINK),
    92: Meaning(said="memory errors that could still be corrected are unusually many", do=_MEMORY),
    94: Meaning(said="a memory error hit one program only, which was ended", do=_MEMORY),
    95: Meaning(said="a memory error may have hit every program on the card", do=f"{_RESET}; what it computed may be wrong"),
    109: Meaning(said="the card could not change from one program to another in time", do=_RESET),
    110: Meaning(said="the card shut itself for a fault of its security", do=_RESET),
    119: Meaning(said="the card's own processor (GSP) did not answer the driver", do=_DRIVER),
    120: Meaning(said="the card's own processor (GSP) failed", do=_DRIVER),
    140: Meaning(said="memory held an error from which the card did not recover", do=_MEMORY),
    143: Meaning(said="the card could not be started", do=_RESET),
    154: Meaning(said="the driver says that the card needs a reset, or the machine a new start", do=_RESET),
}
_UNKNOWN = Meaning(said="an error that is not in our list", do="look it up in NVIDIA's XID manual, or in dmesg on the host")


def meaning(code: int) -> Meaning:
    """What a report means. There is always something to say."""
    return MEANINGS.get(code, _UNKNOWN)


class Events:
    """The newest report of each card. Its methods are called by one thread at a time, except for `of`; they raise nothing."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}
        self.begin()

    def begin(self) -> None:
        """The library has been opened: nothing is watched yet, and a set from before, or of the parent process, is no use."""
        self._set: Any = None  # NVML's
        self._watched: dict[int | None, str] = {}  # UUIDs by the handles' addresses
        self._refused: set[str] = set()

    def of(self, uuid: str | None) -> dict[str, Any]:
        """What is known of a card, for `gpu.health`."""
        return {"xid": self._last.get(uuid or ""), "xid_watched": uuid in self._watched.values()}

    def watch(self, pynvml: Any, handle: Any, uuid: str) -> None:
        """Have the card's reports kept from now on, if the driver does that."""
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
            log.debug("%s tells of no events: %s", uuid, error)
            self._refused.add(uuid)
        else:
            self._watched[address] = uuid

    def take_in(self, pynvml: Any) -> None:
        """Keep what has been reported since the last look."""
        for _ in range(MOST if self._watched else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, WAIT_MS)
            except pynvml.NVMLError:  # none is left; of a card that is lost the next call will say so
                return
            uuid, code = self._watched.get(_address(event.device)), int(event.eventData)
            if uuid is None or event.eventType != pynvml.nvmlEventTypeXidCriticalError:
                continue
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._last[uuid] = {"code": code, "at": at}
            log.warning("the driver reported XID %d of %s: %s", code, uuid, meaning(code).said)

    def end(self, pynvml: Any) -> None:
        """The library is about to be closed, and the set with it. What was reported is kept."""
        if self._set is not None:
            try:
                pynvml.nvmlEventSetFree(self._set)
            except pynvml.NVMLError as error:
                log.debug("NVML did not free its events: %s", error)
        self.begin()


def _address(handle: Any) -> int | None:
    """What two handles of one card have in common."""
    return ctypes.cast(handle, ctypes.c_void_p).value
