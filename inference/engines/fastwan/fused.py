"""The elementwise arithmetic between the matrix products: norms, modulation, gates, positions.

Each is one pass over gigabytes when compiled, and three to eight when not. They are compiled before the first job and never
beside one: while torch compiles, a network that another thread calls can fail (pytorch issue 126024). A compiled function is
used only if it gives the same results; one that cannot be compiled (no compiler, unsupported GPU) runs uncompiled. All work on
rows (n, width), so one compilation serves every video size.
"""

from __future__ import annotations

import logging
import subprocess
import types
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from errors import first_line

log = logging.getLogger(__name__)

#: `first`: compiled before the first job; `off`: never.
When = Literal["first", "off"]

#: Rows of random input that a compiled function is tested with, and its largest relative error, by the bytes per element of its
#: result: rounding in 16 bits, or in 8.
TRIED_ROWS, APART = 4096, {1: 0.05, 2: 0.02, 4: 0.02}
#: Errors of a failed compilation: torch's own are RuntimeErrors, the others come from what it calls.
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


def eighth(made: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Into made (n, w) float8_e4m3fn: x (n, w), each row divided by its scale, which is its largest number / 448 and goes into
    scale (n, 1). Uncompiled, the scale is rounded to the precision of x, which saves a copy in fp32; values that are slightly
    above 448 as a result are rounded back. Compiled, it need not be."""
    scale.copy_((torch.linalg.vector_norm(x, float("inf"), 1, keepdim=True).float().clamp_min(1e-12) / 448).to(x.dtype))
    return made.copy_(x / scale.to(x.dtype))


class Fused:
    """The five functions, each compiled for every new width and dtype until `settle`; uncompiled otherwise."""

    def __init__(self, when: When = "off") -> None:
        self._compiles = when == "first"
        self._twins: dict[Any, Callable[..., Tensor] | None] = {}  # None: could not be compiled

    def settle(self) -> None:
        """Compile nothing from now on, so that other threads may call networks."""
        self._compiles = False

    def norm_silu(self, x: Tensor, gamma: Tensor) -> Tensor:
        return self._run(norm_silu, x, gamma)

    def modulate(self, made: Tensor, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self._run(modulate, made, x, shift, scale)

    def gate(self, x: Tensor, added: Tensor, share: Tensor) -> Tensor:
        return self._run(gate, x, added, share)

    def turn(self, x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        return self._run(turn, x, weight, cosine, sine)

    def eighth(self, made: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        return self._run(eighth, made, x, scale)

    @property
    def ready(self) -> int:
        """How many are compiled."""
        return sum(twin is not None for twin in self._twins.values())

    def _run(self, function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        if len(given[0]) < 2:
            return function(*given)
        key = (function.__name__, *((each.dtype, each.shape[-1]) for each in given))
        if self._compiles and key not in self._twins:
            self._twins[key] = _compiled(function, [_like(each) for each in given])
        twin = self._twins.get(key)
        if twin is None or not given[0].is_inference():
            return function(*given)
        # a weight made outside inference mode would not match what was compiled; it is small, so clone it
        return twin(*(each if each.is_inference() else each.clone() for each in given))


def _compiled(function: Callable[..., Tensor], samples: list[Tensor]) -> Callable[..., Tensor] | None:
    """The compiled function, tested on random rows; None, with a warning in the log, if that fails."""
    try:
        compiled = torch.compile(_copy_of(function), fullgraph=True)
        for rows in (TRIED_ROWS, TRIED_ROWS - 24):  # the second size shows whether the number of rows is dynamic
            part = [each[:rows] if each.ndim > 1 else each for each in samples]
            expected = function(*(each.clone() for each in part))
            got = compiled(*(_of_any_length(each.clone()) for each in part)).float()
            if not float((got - expected.float()).norm()) <= APART[expected.itemsize] * float(expected.float().norm()):
                raise RuntimeError("its results differ")
    except FAULTS as error:
        log.warning("%s runs uncompiled; compiling it failed: %s", function.__name__, first_line(error))
        return None
    twin: Callable[..., Tensor] = torch._dynamo.run(compiled)  # inputs it was not compiled for run uncompiled
    return twin


def _of_any_length(rows: Tensor) -> Tensor:
    """Mark the number of rows as dynamic, but not the width: with a dynamic width, norm_silu would read each row twice and
    compute the root as a 64-bit power, which is 64 times as slow on most GPUs."""
    if rows.ndim > 1:
        torch._dynamo.mark_dynamic(rows, 0)
    return rows


def _like(given: Tensor) -> Tensor:
    """Random input of the same dtype, width and device, with TRIED_ROWS rows."""
    shape = (TRIED_ROWS, given.shape[-1]) if given.ndim > 1 else given.shape
    return torch.randn(shape, device=given.device).to(given.dtype)


def _copy_of(function: Any) -> Callable[..., Tensor]:
    """A copy with its own code object: the compiler keeps a limited number of variants per code object."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
