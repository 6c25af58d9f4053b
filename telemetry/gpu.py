"""What NVML says about each GPU; the only door to `pynvml`.

The library is loaded at the first call, not at import, and stays open. Every call into it is wrapped on its own, because
cards and drivers differ in what they offer: a reading that is not offered is None, never 0. A driver call on a dying card can
block for minutes, so the reading is done in a thread that is left behind when it takes too long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

#: One GPU: the keys of `IDENTITY` and `READINGS`, and "lost": True (only then is that key there) for a card that has gone.
Gpu = dict[str, Any]

IDENTITY = ("index", "uuid", "name", "driver", "cuda")
READINGS = (
    "utilization_gpu", "utilization_memory",  # percent
    "memory_total_mib", "memory_used_mib", "temperature_c", "power_w", "power_limit_w", "clock_sm_mhz", "clock_memory_mhz",
    "fan_percent",
    "pcie_tx_kbps", "pcie_rx_kbps",  # as NVML counts them: KB/s over the last 20 ms
    "throttle_reasons",  # words of THROTTLE_WORDS; [] when the clocks are free
    "ecc_errors_uncorrected",  # since the driver was loaded
    "processes",  # [{"pid", "memory_used_mib"}], by the host's process ids
)  # fmt: skip

#: What `gauges` reads: what can be had without waiting, and the video engines' load.
GAUGES = (
    "utilization_gpu", "utilization_memory", "utilization_encoder", "utilization_decoder", "memory_total_mib",
    "memory_used_mib", "temperature_c", "power_w", "power_limit_w", "clock_sm_mhz", "clock_memory_mhz", "throttle_reasons",
)  # fmt: skip

#: The bits of NVML's clocks-event-reasons mask.
THROTTLE_WORDS = {
    0x001: "idle",
    0x002: "app clock setting",
    0x004: "power cap",
    0x008: "hardware slow-down",
    0x010: "sync boost",
    0x020: "software heat limit",
    0x040: "hardware heat limit",
    0x080: "power brake",
    0x100: "display",
}

_lock = threading.Lock()  # NVML is told to start and stop by one thread at a time
_started_in: int | None = None  # the process in which NVML is open; a forked child must open its own
_known: dict[str, Gpu] = {}  # identity by UUID of every card seen, so that one that has gone can still be named


def readings(only: str = "all", timeout_s: float = 3.0) -> list[Gpu]:
    """One entry a GPU, in NVML's order. [] without a GPU, a driver or the library.

    only: "all", or indexes or UUIDs (or their beginnings) separated by commas. A card that fell off the bus, needs a reset
    or is no longer listed has "lost": True, its name, and None for every reading. Cards that the driver does not answer for
    within `timeout_s` have None for every reading. Takes about 40 ms a card (the PCIe counters), hardly any of it CPU.
    """
    return _in_time(only, timeout_s, _values)


def gauges(only: str = "all", timeout_s: float = 3.0) -> list[Gpu]:
    """As `readings`, with the keys of GAUGES alone: cheap enough for every second, about a millisecond a card."""
    return [{key: card.get(key) for key in (*IDENTITY, *GAUGES)} for card in _in_time(only, timeout_s, _gauges)]


def _in_time(only: str, timeout_s: float, values: Callable[[Any, Any], Gpu]) -> list[Gpu]:
    answer: queue.SimpleQueue[list[Gpu]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(only, timeout_s, values, answer), name="nvml", daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        log.warning("the GPU driver did not answer within %.1f s", timeout_s)
        return [_unread(card) for card in list(_known.values()) if _wanted(card, only)]


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
    return True


def _stop(pynvml: Any) -> None:
    """Close NVML, so that the next call opens it afresh."""
    global _started_in
    _started_in = None
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def _card(pynvml: Any, index: int, only: str, values: Callable[[Any, Any], Gpu]) -> Gpu:
    known = next((card for card in _known.values() if card["index"] == index), dict.fromkeys(IDENTITY) | {"index": index})
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        card = _identity(pynvml, handle, index)
        if card["uuid"]:
            _known[card["uuid"]] = card
        return {**card, **values(pynvml, handle)} if _wanted(card, only) else _unread(card)
    except pynvml.NVMLError as error:
        lost = error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
        log.debug("GPU %d: %s", index, error)
        return _unread(known) | ({"lost": True} if lost else {})


def _identity(pynvml: Any, handle: Any, index: int) -> Gpu:
    cuda = _ask(pynvml, pynvml.nvmlSystemGetCudaDriverVersion)
    return {
        "index": index,
        "uuid": _ask(pynvml, lambda: pynvml.nvmlDeviceGetUUID(handle)),
        "name": _ask(pynvml, lambda: pynvml.nvmlDeviceGetName(handle)),
        "driver": _ask(pynvml, pynvml.nvmlSystemGetDriverVersion),
        "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def _values(pynvml: Any, handle: Any) -> Gpu:
    """Every reading of one card. Raises NVMLError if the card is lost."""
    ask = _asker(pynvml, handle)
    return {
        **_common(pynvml, handle),
        "fan_percent": ask("nvmlDeviceGetFanSpeed"),
        "pcie_tx_kbps": ask("nvmlDeviceGetPcieThroughput", with_=(pynvml.NVML_PCIE_UTIL_TX_BYTES,)),
        "pcie_rx_kbps": ask("nvmlDeviceGetPcieThroughput", with_=(pynvml.NVML_PCIE_UTIL_RX_BYTES,)),
        "ecc_errors_uncorrected": ask(
            "nvmlDeviceGetTotalEccErrors", with_=(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        ),
        "processes": _processes(
            ask("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2"),
            ask("nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
        ),
    }


def _gauges(pynvml: Any, handle: Any) -> Gpu:
    """What is watched all the time. Raises NVMLError if the card is lost."""
    ask = _asker(pynvml, handle)
    encoder, decoder = ask("nvmlDeviceGetEncoderUtilization"), ask("nvmlDeviceGetDecoderUtilization")
    video = {"utilization_encoder": encoder and encoder[0], "utilization_decoder": decoder and decoder[0]}
    return _common(pynvml, handle) | video


def _common(pynvml: Any, handle: Any) -> Gpu:
    ask = _asker(pynvml, handle)
    used = ask("nvmlDeviceGetUtilizationRates")
    memory = _ask(  # the older call counts what the driver keeps for itself as used
        pynvml,
        lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
        lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
    )
    throttle = ask("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    return {
        "utilization_gpu": used and used.gpu,
        "utilization_memory": used and used.memory,
        "memory_total_mib": memory and memory.total // 2**20,
        "memory_used_mib": memory and memory.used // 2**20,
        "temperature_c": ask("nvmlDeviceGetTemperature", with_=(pynvml.NVML_TEMPERATURE_GPU,)),
        "power_w": _watts(ask("nvmlDeviceGetPowerUsage")),
        "power_limit_w": _watts(ask("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
        "clock_sm_mhz": ask("nvmlDeviceGetClockInfo", with_=(pynvml.NVML_CLOCK_SM,)),
        "clock_memory_mhz": ask("nvmlDeviceGetClockInfo", with_=(pynvml.NVML_CLOCK_MEM,)),
        "throttle_reasons": None if throttle is None else [word for bit, word in THROTTLE_WORDS.items() if throttle & bit],
    }


def _asker(pynvml: Any, handle: Any) -> Callable[..., Any]:
    """Gives the answer of the first of some functions, by name, that this library has and this card offers."""

    def ask(*names: str, with_: tuple[Any, ...] = ()) -> Any:
        calls = [getattr(pynvml, name) for name in names if hasattr(pynvml, name)]
        return _ask(pynvml, *(lambda call=call: call(handle, *with_) for call in calls))

    return ask


def _ask(pynvml: Any, *calls: Callable[[], Any]) -> Any:
    """The answer of the first call that the card offers, else None. A lost card's error passes."""
    for call in calls:
        try:
            return call()
        except pynvml.NVMLError as error:
            if error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
                raise
        except UnicodeDecodeError:  # a name that is not UTF-8
            continue
    return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _processes(*lists: list[Any] | None) -> list[dict[str, int | None]] | None:
    """Compute and graphics processes, each once; None if the card tells neither."""
    if all(found is None for found in lists):
        return None
    by_pid = {process.pid: process.usedGpuMemory for found in lists for process in found or ()}
    return [{"pid": pid, "memory_used_mib": None if size is None else size // 2**20} for pid, size in by_pid.items()]


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
