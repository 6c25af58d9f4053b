"""A card that is not there: whole engines run on "cuda:0", with numbers, on a torch that was built without CUDA.

    with made_up_card.inserted() as card:
        engine.load(weights, "cuda:0")

A tensor on the card is a tensor of the processor under another device's name, so every number is real. What a true card
refuses and a processor takes is refused: arguments on two devices, products of two precisions, memory that another stream
may still be at, what may not be done while a graph is captured. What arrives late does: a copy to the host that nobody has
waited for is rubbish. It knows nothing of speed, of what kernels exist or of a card's own rounding.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # looks through torch.cuda when it is imported, and must find what is always there

from tests.fakes.made_up_streams import stand_ins
from tests.fakes.made_up_tensors import Card, Slot

#: Numbers of kinds of device in c10::DeviceType.
CUDA, META = 1, 14


@contextmanager
def inserted(total_bytes: int = 10**9, capability: tuple[int, int] = (9, 0)) -> Iterator[Card]:
    """While it lasts, torch sees one card with so much memory, in every thread that begins meanwhile."""
    card, run = Card(total_bytes), threading.Thread.run
    named = {**stand_ins(card.time), **_facts(card, capability)}
    before = {name: getattr(torch.cuda, name) for name in named}

    def run_with_card(thread: threading.Thread) -> None:
        with Slot(card):
            run(thread)

    _guard()
    lifted = torch._C._only_lift_cpu_tensors()
    try:
        for name, value in named.items():
            setattr(torch.cuda, name, value)
        torch._C._set_only_lift_cpu_tensors(True)
        threading.Thread.run = run_with_card  # type: ignore
        with Slot(card):
            yield card
    finally:
        threading.Thread.run = run  # type: ignore
        torch._C._set_only_lift_cpu_tensors(lifted)
        for name, value in before.items():
            setattr(torch.cuda, name, value)


def _guard() -> None:
    """What torch's own code asks before it touches a tensor of a card: made by a torch with CUDA that finds no card; for one
    without, what serves tensors without numbers serves as well."""
    torch._C._ensureCUDADeviceGuardSet()
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[CUDA] = guards[CUDA] or guards[META]


def _facts(card: Card, capability: tuple[int, int]) -> dict[str, Any]:
    def reset(device: Any = None) -> None:
        card.peak_bytes, card.peak_kept_bytes = card.used_bytes, card.kept_bytes

    def give_back() -> None:
        card.kept_bytes = card.used_bytes

    def nothing(*given: Any) -> None:
        pass

    size, (major, minor) = card.total_bytes, capability
    about = SimpleNamespace(name="a made-up card", uuid="none", total_memory=size, major=major, minor=minor)
    return {
        **dict.fromkeys(("init", "_lazy_init", "set_device", "manual_seed_all"), nothing),
        **dict.fromkeys(("is_available", "is_initialized", "is_bf16_supported"), lambda: True),
        "memory_allocated": lambda device=None: card.used_bytes,
        "memory_reserved": lambda device=None: card.kept_bytes,
        "max_memory_allocated": lambda device=None: card.peak_bytes,
        "max_memory_reserved": lambda device=None: card.peak_kept_bytes,
        "empty_cache": give_back,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: about.name,
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: about,
        "mem_get_info": lambda device=None: (card.total_bytes - card.kept_bytes, card.total_bytes),
        "reset_peak_memory_stats": reset,
    }
