"""The queries to one card: identity, load and health. `telemetry.gpu` passes the library and the card's handle.

Every call is wrapped separately, because cards and drivers differ in what they support: what is unsupported is None, never 0.
Only the error of a lost card propagates. Stores nothing, and never opens the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: One GPU: the keys of IDENTITY and of READINGS, GAUGES or HEALTH, and "lost": True (only then is that key there) for a card
#: that is gone.
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

#: What can be had without waiting, and the video engines' load.
GAUGES = (
    "utilization_gpu", "utilization_memory", "utilization_encoder", "utilization_decoder", "memory_total_mib",
    "memory_used_mib", "temperature_c", "memory_temperature_c", "power_w", "power_limit_w", "clock_sm_mhz", "clock_memory_mhz",
    "throttle_reasons",
)  # fmt: skip

#: What hardly ever changes, and means something when it does.
HEALTH = (
    "persistence",  # whether the driver stays loaded while nobody uses the card
    "pcie_generation", "pcie_width", "pcie_generation_max", "pcie_width_max",  # now; what card and slot can do together
    "ecc_enabled", "ecc_errors_corrected",  # since the driver was loaded
    "remapped_rows",  # {"correctable", "uncorrectable": counts, "pending", "failed": bool}
    "retired_pages",  # {"correctable", "uncorrectable": counts, "pending": bool}: older cards have these instead
    "slowdown_c", "shutdown_c",
    "margin_c",  # how much warmer it may get; newer cards report this instead of limits
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


def uuid(pynvml: Any, handle: Any) -> str | None:
    found: str | None = _ask(pynvml, lambda: pynvml.nvmlDeviceGetUUID(handle))
    return found


def identity(pynvml: Any, handle: Any, index: int) -> Gpu:
    """Who it is. Raises NVMLError if the card is lost, as everything here does."""
    cuda = _ask(pynvml, pynvml.nvmlSystemGetCudaDriverVersion)
    return {
        "index": index,
        "uuid": uuid(pynvml, handle),
        "name": _ask(pynvml, lambda: pynvml.nvmlDeviceGetName(handle)),
        "driver": _ask(pynvml, pynvml.nvmlSystemGetDriverVersion),
        "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def readings(pynvml: Any, handle: Any) -> Gpu:
    """READINGS. Takes about 40 ms (the PCIe counters), hardly any of it CPU."""
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


def gauges(pynvml: Any, handle: Any) -> Gpu:
    """GAUGES. About a millisecond."""
    ask = _asker(pynvml, handle)
    encoder, decoder = ask("nvmlDeviceGetEncoderUtilization"), ask("nvmlDeviceGetDecoderUtilization")
    return _common(pynvml, handle) | {
        "utilization_encoder": encoder and encoder[0],
        "utilization_decoder": decoder and decoder[0],
        "memory_temperature_c": _field(pynvml, handle, pynvml.NVML_FI_DEV_MEMORY_TEMP),
    }


def health(pynvml: Any, handle: Any) -> Gpu:
    """HEALTH."""
    ask = _asker(pynvml, handle)
    ecc, persistence = ask("nvmlDeviceGetEccMode"), ask("nvmlDeviceGetPersistenceMode")
    rows = ask("nvmlDeviceGetRemappedRows")
    slowdown, shutdown = pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN
    return {
        "persistence": None if persistence is None else bool(persistence),
        "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_generation_max": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_width_max": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        "ecc_enabled": None if ecc is None else bool(ecc[0]),
        "ecc_errors_corrected": ask(
            "nvmlDeviceGetTotalEccErrors", with_=(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC)
        ),
        "remapped_rows": _remapped(rows),
        "retired_pages": None if rows is not None else _retired(pynvml, ask),
        "slowdown_c": ask("nvmlDeviceGetTemperatureThreshold", with_=(slowdown,)),
        "shutdown_c": ask("nvmlDeviceGetTemperatureThreshold", with_=(shutdown,)),
        "margin_c": ask("nvmlDeviceGetMarginTemperature"),
    }


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
            if is_lost(pynvml, error):
                raise
        except UnicodeDecodeError:  # a name that is not UTF-8
            continue
    return None


def is_lost(pynvml: Any, error: Any) -> bool:
    """Whether this NVMLError means that the card is gone until it is reset, or the machine is rebooted."""
    return error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)


def _field(pynvml: Any, handle: Any, field: int) -> int | None:
    """One of NVML's numbered values that is an unsigned int. It has an error of its own beside that of the call."""
    found = _ask(pynvml, lambda: pynvml.nvmlDeviceGetFieldValues(handle, [field]))
    good = found is not None and found[0].nvmlReturn == pynvml.NVML_SUCCESS
    return int(found[0].value.uiVal) if good else None


def _remapped(rows: tuple[int, int, int, int] | None) -> dict[str, Any] | None:
    if rows is None:
        return None
    return {"correctable": rows[0], "uncorrectable": rows[1], "pending": bool(rows[2]), "failed": bool(rows[3])}


def _retired(pynvml: Any, ask: Callable[..., Any]) -> dict[str, Any] | None:
    singles, double = (
        ask("nvmlDeviceGetRetiredPages", with_=(cause,))
        for cause in (
            pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
            pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
        )
    )
    if singles is None or double is None:
        return None
    pending = ask("nvmlDeviceGetRetiredPagesPendingStatus")
    return {
        "correctable": len(singles),
        "uncorrectable": len(double),
        "pending": None if pending is None else bool(pending),
    }


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _processes(*lists: list[Any] | None) -> list[dict[str, int | None]] | None:
    """Compute and graphics processes, each once; None if the card tells neither."""
    if all(found is None for found in lists):
        return None
    by_pid = {process.pid: process.usedGpuMemory for found in lists for process in found or ()}
    return [{"pid": pid, "memory_used_mib": None if size is None else size // 2**20} for pid, size in by_pid.items()]
