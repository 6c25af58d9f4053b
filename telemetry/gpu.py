"""What NVML says about each GPU; the only door to `pynvml`.

The library is loaded at the first call, not at import, and stays open. What a card does not provide is None, never 0 (see
`telemetry.card`). A driver call on a dying card can block for minutes, so readings are taken in a thread that is abandoned
when it takes too long. Every check first reads the driver's events: a lost card may have reported why.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from telemetry import card as asked
from telemetry.card import GAUGES, HEALTH, IDENTITY, READINGS, Gpu
from telemetry.xid import Events

log = logging.getLogger(__name__)

_lock = threading.Lock()  # NVML is told to start and stop by one thread at a time
_started_in: int | None = None  # the process in which NVML is open; a forked child must open its own
_known: dict[str, Gpu] = {}  # identity by UUID of every card seen: asked once, and one that has gone can still be named
_events = Events()
_is_silent = False  # whether the driver let the last look wait in vain: said once, not every second for days


def readings(only: str = "all", timeout_s: float = 3.0) -> list[Gpu]:
    """One entry a GPU, in NVML's order. [] without a GPU, a driver or the library.

    only: "all", or indexes or UUIDs (or their beginnings) separated by commas. A card that fell off the bus, needs a reset
    or is no longer listed has "lost": True, its name, and None for every reading. Cards that the driver does not answer for
    within `timeout_s` have None for every reading. Takes about 40 ms a card (the PCIe counters), hardly any of it CPU.
    """
    return _in_time(only, timeout_s, asked.readings)


def gauges(only: str = "all", timeout_s: float = 3.0) -> list[Gpu]:
    """As `readings`, with the keys of GAUGES alone: cheap enough for every second, about a millisecond a card."""
    return [{key: card.get(key) for key in (*IDENTITY, *GAUGES)} for card in _in_time(only, timeout_s, asked.gauges)]


def health(only: str = "all", timeout_s: float = 3.0) -> list[Gpu]:
    """As `readings`, with the keys of HEALTH alone, and what the driver reported of the card since this process first looked:
    "xid", the newest report as {"code", "at"}, None if there was none; "xid_watched", whether the driver tells of them.
    """
    cards = _in_time(only, timeout_s, asked.health)
    return [{**{key: card.get(key) for key in (*IDENTITY, *HEALTH)}, **_events.of(card["uuid"])} for card in cards]


def _in_time(only: str, timeout_s: float, values: Callable[[Any, Any], Gpu]) -> list[Gpu]:
    global _is_silent
    answer: queue.SimpleQueue[list[Gpu]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(only, timeout_s, values, answer), name="nvml", daemon=True).start()
    try:
        cards = answer.get(timeout=timeout_s)
    except queue.Empty:
        if not _is_silent:
            log.warning("the GPU driver did not answer within %.1f s; retrying", timeout_s)
        _is_silent = True
        return [_unread(card) for card in list(_known.values()) if _wanted(card, only)]
    if _is_silent:
        log.info("the GPU driver answers again")
    _is_silent = False
    return cards


def _read(only: str, timeout_s: float, values: Callable[[Any, Any], Gpu], answer: queue.SimpleQueue[list[Gpu]]) -> None:
    if not _lock.acquire(timeout=timeout_s):  # an earlier call still hangs in the driver: do not pile up behind it
        return
    try:
        answer.put(_cards(only, values))
    finally:
        _lock.release()


def _cards(only: str, values: Callable[[Any, Any], Gpu]) -> list[Gpu]:
    try:
        import pynvml
    except ImportError:
        return []
    if not _start(pynvml):
        return [_unread(card) for card in _known.values() if _wanted(card, only)]
    _events.take_in(pynvml)
    try:
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        log.debug("NVML did not count the GPUs: %s", error)
        _stop(pynvml)
        return [_unread(card) for card in _known.values() if _wanted(card, only)]
    cards = [_card(pynvml, index, only, values) for index in range(count)]
    cards += _gone(cards)
    if any(card.get("lost") for card in cards):
        _stop(pynvml)  # a card that was reset is found again only by a fresh start of the library
    return [card for card in cards if _wanted(card, only)]


def _gone(present: list[Gpu]) -> list[Gpu]:
    """Cards seen before that the driver no longer lists. (The indexes of the others may have moved up.)"""
    uuids = {card["uuid"] for card in present}
    nameless = {card["index"] for card in present if card["uuid"] is None}
    missing = [card for card in _known.values() if card["uuid"] not in uuids and card["index"] not in nameless]
    return [{**_unread(card), "lost": True} for card in missing]


def _start(pynvml: Any) -> bool:
    """Open NVML once a process."""
    global _started_in
    if _started_in == os.getpid():
        return True
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("NVML did not start: %s", error)
        return False
    _started_in = os.getpid()
    _events.begin()
    return True


def _stop(pynvml: Any) -> None:
    """Close NVML, so that the next call opens it afresh."""
    global _started_in
    _started_in = None
    _events.end(pynvml)
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def _card(pynvml: Any, index: int, only: str, values: Callable[[Any, Any], Gpu]) -> Gpu:
    known = next((card for card in _known.values() if card["index"] == index), dict.fromkeys(IDENTITY) | {"index": index})
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        card = _identity(pynvml, handle, index)
        if card["uuid"]:
            _known[card["uuid"]] = card
            _events.watch(pynvml, handle, card["uuid"])
        return {**card, **values(pynvml, handle)} if _wanted(card, only) else _unread(card)
    except pynvml.NVMLError as error:
        log.debug("GPU %d: %s", index, error)
        return _unread(known) | ({"lost": True} if asked.is_lost(pynvml, error) else {})


def _identity(pynvml: Any, handle: Any, index: int) -> Gpu:
    """Who the card at this index is; only a card that has not been seen there is asked for more than its UUID."""
    known = _known.get(asked.uuid(pynvml, handle) or "")
    if known is None or known["index"] != index or None in known.values():
        return asked.identity(pynvml, handle, index)
    return known


def _unread(card: Gpu) -> Gpu:
    return {**card, **dict.fromkeys(READINGS)}


def _wanted(card: Gpu, only: str) -> bool:
    """Whether `only` names this card. Among UUIDs, one whose own was never learnt counts as named: better seen than dropped."""
    if only == "all":
        return True
    names = [name.strip().lower() for name in only.split(",")]
    if str(card["index"]) in names:
        return True
    uuid = (card["uuid"] or "").lower()
    return any(uuid.startswith(name) or not uuid for name in names if not name.isdigit())
