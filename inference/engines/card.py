"""What an engine asks of the GPU besides computing: is it new enough, how much memory is free, does it still respond.

Knows nothing about engines and must never decide for one.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from numpy.typing import NDArray

from errors import EngineFailed

#: How the driver, its compiler, cuBLAS, cuDNN and torch (for host memory) report out of memory. torch tries cuDNN's kernels in
#: turn and drops each kernel's own error; a library that had no memory for its handle reports "not initialized". Before it
#: reports out of memory, torch asserts that NVML responds, which it may not on a MIG slice or in a container (issue 112377).
FULL = (
    *("out of memory", "alloc_failed", "allocation_failed", "allocate memory"),
    *("unable to find an engine", "status_not_initialized", "nvml_success"),
)


def refuse_older(name: str, capability: tuple[int, int], least: tuple[int, int], lacks: str) -> None:
    """Raises EngineFailed for a GPU whose compute capability is below `least`; `lacks` says what it cannot do."""
    if capability < least:
        found, wanted = (".".join(str(number) for number in each) for each in (capability, least))
        raise EngineFailed(f"{name} has compute capability {found} and {lacks}; a GPU with at least {wanted} is needed")


def found(device: str) -> tuple[str, tuple[int, int]]:
    """The GPU's name and compute capability."""
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)


def sent(table: NDArray[Any], device: Any) -> torch.Tensor:
    """An array, copied to the device; to a GPU asynchronously, without waiting for the copy or for earlier work."""
    tensor = torch.from_numpy(table)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor.to(device)


def let_go() -> None:
    """Return unused cached GPU memory to the driver; stack frames of old errors hold tensors too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: str) -> int:
    """How much GPU memory is available."""
    let_go()
    return int(torch.cuda.mem_get_info(device)[0])


def is_full(error: RuntimeError | MemoryError) -> bool:
    """Whether the error means out of memory. Libraries other than torch's allocator have no error type of their own for it."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in said for words in FULL)


def is_lost() -> bool:
    """Whether the GPU no longer responds to this process: after an illegal access or a memory error, for example, every call
    fails until the process restarts. Waits for running work."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
