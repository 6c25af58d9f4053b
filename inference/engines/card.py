"""What an engine asks of the card beside arithmetic: whether it is new enough, what is free, whether it still answers.

Knows of no engine, and must never choose for one.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from numpy.typing import NDArray

from errors import EngineFailed

#: How the driver, its compiler, cuBLAS, cuDNN and torch for the host's own memory say that there is none. torch tries cuDNN's
#: kernels in turn and drops each one's own error; and a library whose handle found no room was "not initialized". About to say
#: that memory is short, torch asserts that NVML answers, which on a part of a card or in a container it may not (issue 112377).
FULL = (
    *("out of memory", "alloc_failed", "allocation_failed", "allocate memory"),
    *("unable to find an engine", "status_not_initialized", "nvml_success"),
)


def refuse_older(name: str, capability: tuple[int, int], least: tuple[int, int], lacks: str) -> None:
    """Raises EngineFailed for a card of a lower compute capability than `least`; `lacks` says what it cannot do."""
    if capability < least:
        found, wanted = (".".join(str(number) for number in each) for each in (capability, least))
        raise EngineFailed(f"{name} has compute capability {found} and {lacks}; a card of at least {wanted} is needed")


def found(device: str) -> tuple[str, tuple[int, int]]:
    """The card's name and compute capability."""
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)


def sent(table: NDArray[Any], device: Any) -> torch.Tensor:
    """An array on the device; to a card it goes without anybody waiting for it, or for what the card does before."""
    tensor = torch.from_numpy(table)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor.to(device)


def let_go() -> None:
    """Give back to the driver what this process holds of a card and does not use; frames of old errors hold tensors too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: str) -> int:
    """What can be had of the card's memory."""
    let_go()
    return int(torch.cuda.mem_get_info(device)[0])


def is_full(error: RuntimeError | MemoryError) -> bool:
    """Whether it says that memory is short. The libraries beside torch's allocator have no error of their own for it."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in said for words in FULL)


def is_lost() -> bool:
    """Whether the card no longer answers this process: after an illegal access, say, or an error of its memory, every call
    fails until a new process begins. Waits for what it is doing."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
