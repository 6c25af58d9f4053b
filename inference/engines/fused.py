"""Compiles the elementwise arithmetic between convolutions and matrix products, which takes several passes over memory if each
operation is a kernel of its own.

Functions are compiled before the first job and never beside one: while torch compiles, a network that another thread calls can
fail (pytorch issue 126024). A compiled function is used only if it gives the same results; one that cannot be compiled (no
compiler, unsupported GPU) runs uncompiled.
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

from errors import first_line

log = logging.getLogger(__name__)

#: `first`: compiled before the first job; `off`: never.
When = Literal["first", "off"]

#: How many rows or pictures of random input a compiled function is tested with, by the number of dimensions.
TRIED = {2: 4096, 4: 4}
#: Its largest relative error, by the bytes per element of its result: rounding in 16 bits, or in 8.
APART = {1: 0.05, 2: 0.02, 4: 0.02}
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

Function = Callable[..., Tensor]


class Fused:
    """Runs functions of tensors, each compiled for every new kind of input until `settle`; uncompiled otherwise."""

    def __init__(self, when: When = "off") -> None:
        self._compiles = when == "first"
        self._twins: dict[Any, Function | None] = {}  # None: could not be compiled

    def settle(self) -> None:
        """Compile nothing from now on, so that other threads may call networks."""
        self._compiles = False

    @property
    def ready(self) -> int:
        """How many are compiled."""
        return sum(twin is not None for twin in self._twins.values())

    def run(self, function: Function, *given: Any, plain: Function | None = None) -> Tensor:
        """function(*given). given: rows (n, width), channels-last pictures (n, c, h, w), vectors and constants. Any n from 2 up
        is served by one compilation.

        plain: what runs uncompiled, and what the compiled function must agree with; the function itself by default.
        """
        plain = plain or function
        if len(given[0]) < 2:
            return plain(*given)
        key = (function.__name__, *map(_kind, given))
        if self._compiles and key not in self._twins:
            self._twins[key] = _compiled(function, plain, [_like(each) for each in given])
        twin = self._twins.get(key)
        if twin is None or not given[0].is_inference():
            return plain(*given)
        # a weight made outside inference mode would not match what was compiled; it is small, so clone it
        return twin(*(each.clone() if isinstance(each, Tensor) and not each.is_inference() else each for each in given))


def _kind(given: Any) -> Any:
    """What a compilation is for: everything but the number of rows or pictures."""
    if not isinstance(given, Tensor):
        return given
    return given.dtype, given.shape[1:] if given.ndim > 1 else given.shape


def _compiled(function: Function, plain: Function, samples: list[Any]) -> Function | None:
    """The compiled function, tested on random input; None, with a warning in the log, if that fails."""
    try:
        compiled = torch.compile(_copy_of(function), fullgraph=True)
        whole = len(samples[0])
        for count in (whole, whole - 1):  # the second size shows whether the number is dynamic
            part = [each[:count] if _is_many(each) else each for each in samples]
            expected = plain(*map(_cloned, part))
            with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
                got = compiled(*(_of_any_length(_cloned(each)) for each in part)).float()
            if not float((got - expected.float()).norm()) <= APART[expected.itemsize] * float(expected.float().norm()):
                raise RuntimeError("its results differ")
    except FAULTS as error:
        log.warning("%s runs uncompiled; compiling it failed: %s", function.__name__, first_line(error))
        return None
    twin: Function = torch._dynamo.run(compiled)  # inputs it was not compiled for run uncompiled
    return twin


def _is_many(given: Any) -> bool:
    return isinstance(given, Tensor) and given.ndim > 1


def _cloned(given: Any) -> Any:
    return given.clone() if isinstance(given, Tensor) else given


def _of_any_length(given: Any) -> Any:
    """Mark the number of rows or pictures as dynamic. No other size may be: with a dynamic width, a norm would read each row
    twice and compute a root as a 64-bit power, which is 64 times as slow on most GPUs. torch would make it dynamic by itself
    when a function is compiled for a second width, copy or not."""
    if _is_many(given):
        torch._dynamo.mark_dynamic(given, 0)
    return given


def _like(given: Any) -> Any:
    """Random input of the same kind."""
    if not isinstance(given, Tensor):
        return given
    shape = (TRIED[given.ndim], *given.shape[1:]) if given.ndim > 1 else given.shape
    made = torch.randn(shape, device=given.device).to(given.dtype)
    return made.contiguous(memory_format=torch.channels_last) if given.ndim == 4 else made


def _copy_of(function: Any) -> Function:
    """A copy with its own code object: the compiler keeps a limited number of variants per code object."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
