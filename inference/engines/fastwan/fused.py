"""The arithmetic between the large products, number by number: norms, modulation, gates, positions.

Each is one pass over gigabytes when it is compiled, and three to eight as written. They are compiled behind the first jobs,
which run them as written; a compiled one takes over when it is ready and has given the same numbers. One that cannot be
compiled (no compiler, no such card) is never missed. All work on rows (n, width), so that one compilation does for every
size of a video.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import types
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger(__name__)

#: `behind`: compiled while jobs run as written; `first`: before the first job; `off`: never.
When = Literal["behind", "first", "off"]

#: Rows of the made-up numbers that a compiled function is tried on, and how far it may be off: rounding in 16 bits.
TRIED_ROWS, APART = 4096, 0.02
#: How a compiler fails: torch's own errors are RuntimeErrors, the others come from what it calls.
FAULTS = (
    RuntimeError,
    OSError,
    ImportError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    subprocess.SubprocessError,
)


def norm_silu(x: Tensor, gamma: Tensor) -> Tensor:
    """x (n, c), each row scaled to the length sqrt(c), times gamma (c), through SiLU."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
    return functional.silu((x / length).to(x.dtype) * (gamma * x.shape[1] ** 0.5))


def modulate(made: Tensor, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Into made (n, w): layer norm of x (n, w) without weights, times 1 + scale (w), plus shift (w), in 32 bits."""
    normed = functional.layer_norm(x.float(), (x.shape[1],), eps=1e-6)
    return made.copy_(torch.addcmul(shift, normed, 1 + scale))


def gate(x: Tensor, added: Tensor, share: Tensor) -> Tensor:
    """Into x (n, w): x + added * share (w), in 32 bits."""
    return x.copy_(torch.addcmul(x.float(), added.float(), share))


def turn(x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (n, w) to unit mean square times weight (w), then rotary positions: each pair of numbers of a head turned by its
    row's angles, cosine and sine (n, d / 2). Returns (n, w / d, d)."""
    pairs = functional.rms_norm(x, (x.shape[1],), weight, 1e-6).view(len(x), -1, cosine.shape[1], 2)
    even, odd = pairs.unbind(-1)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.to(x.dtype).flatten(2)


class Fused:
    """The four functions, each as written until its compiled twin is ready for rows of that width and kind."""

    def __init__(self, when: When = "off") -> None:
        self._when = when
        self._twins: dict[Any, Callable[..., Tensor] | None] = {}  # None: being compiled, or not to be had
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._lock = threading.Lock()

    def norm_silu(self, x: Tensor, gamma: Tensor) -> Tensor:
        return self._run(norm_silu, x, gamma)

    def modulate(self, made: Tensor, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self._run(modulate, made, x, shift, scale)

    def gate(self, x: Tensor, added: Tensor, share: Tensor) -> Tensor:
        return self._run(gate, x, added, share)

    def turn(self, x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        return self._run(turn, x, weight, cosine, sine)

    @property
    def ready(self) -> int:
        """How many are compiled."""
        return sum(twin is not None for twin in self._twins.values())

    def _run(self, function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        if self._when == "off" or len(given[0]) < 2:
            return function(*given)
        key = (function.__name__, *((each.dtype, each.shape[-1]) for each in given))
        with self._lock:
            new = key not in self._twins
            if new:
                self._twins[key] = None
        if new:
            coming = self._pool.submit(self._compile, key, function, [_like(each) for each in given])
            if self._when == "first":
                _waited(coming)
        twin = self._twins[key]
        return (twin or function)(*given)

    def _compile(self, key: Any, function: Callable[..., Tensor], samples: list[Tensor]) -> None:
        """Make the twin and try it on made-up rows, on a stream of its own."""
        device = samples[0].device
        stream = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else contextlib.nullcontext()
        try:
            with stream, torch.inference_mode():
                twin = torch.compile(_copy_of(function), dynamic=True, fullgraph=True)
                for rows in (TRIED_ROWS, TRIED_ROWS - 24):  # the second try is where a fixed size would show
                    part = [each[:rows] if each.ndim > 1 else each for each in samples]
                    expected = function(*(each.clone() for each in part)).float()
                    got = twin(*(each.clone() for each in part)).float()
                if float((got - expected).norm()) > APART * float(expected.norm()):
                    raise RuntimeError("its numbers differ")
        except FAULTS as error:
            log.warning("%s runs as written, it could not be compiled: %s", key[0], str(error).splitlines()[0][:200])
            return
        self._twins[key] = twin


def _waited(coming: Future[None]) -> None:
    coming.result()


def _like(given: Tensor) -> Tensor:
    """Made-up numbers of the same kind, width and device: as many rows as are tried."""
    shape = (TRIED_ROWS, given.shape[-1]) if given.ndim > 1 else given.shape
    return torch.randn(shape, device=given.device).to(given.dtype)


def _copy_of(function: Any) -> Callable[..., Tensor]:
    """With a code object of its own: the compiler keeps a limited number of variants of each."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
