"""Tensors of the made-up card, and the card that keeps their memory and runs their operators on the processor.

See made_up_card.py, which puts it into its slot.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fakes.made_up_streams import Home, Time

DEVICE = torch.device("cuda:0")
#: Operators whose tensors must all be of one precision on a card.
ONE_PRECISION = {"mm", "addmm", "bmm", "baddbmm", "convolution", "native_layer_norm", "native_group_norm"}
#: Operators that take indices from the host too.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: Operators whose answer, or its size, the host waits for.
WAITING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_consecutive"}


class OnCard(torch.Tensor):  # type: ignore[misc]
    """A tensor on the card. `held`: where its numbers are; `home`: the memory that it shares with its views."""

    held: torch.Tensor
    home: Home
    card: Card

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, home: Home, card: Card) -> OnCard:
        with torch.inference_mode(False):  # as weights are, so that there may be views of both
            made: OnCard = torch.Tensor._make_wrapper_subclass(
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=DEVICE
            )
        made.held, made.home, made.card = held, home, card
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """That there is such a method tells torch.nn.Module to swap these tensors as a whole."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(*given: Any) -> OnCard:
        raise NotImplementedError

    def __repr__(self, **_: Any) -> str:
        return f"OnCard({tuple(self.shape)}, {self.dtype})"

    def record_stream(self, stream: Any) -> None:
        self.home.recorded.add(stream.number)

    @property
    def data(self) -> OnCard:
        found: OnCard = self.detach()
        return found

    @data.setter
    def data(self, value: OnCard) -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.held, self.home = value.held, value.home

    def data_ptr(self) -> int:
        return int(self.held.data_ptr())

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        card = next(each.card for each in _tensors((args, kwargs)) if isinstance(each, OnCard))
        return card.answer(function, args, kwargs or {})


class Card:
    """`waits`: why the host stood still, in order; `time.complaints`: memory that was freed too early. `kept_bytes`: what
    torch's allocator has of it, which is the most that was used since it last gave back what it does not use."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes, self.used_bytes, self.peak_bytes = total_bytes, 0, 0
        self.kept_bytes = self.peak_kept_bytes = 0
        self.waits: list[str] = []
        self.time = Time()
        self._pinned: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def put(self, held: torch.Tensor, home: Home | None = None) -> OnCard:
        """A tensor of the processor as one of the card, in memory of its own unless `home` is given."""
        if home is None:
            size = held.untyped_storage().nbytes()
            if self.used_bytes + size > self.total_bytes:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
            home = Home(self.time.stream())
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            self.kept_bytes = max(self.kept_bytes, self.used_bytes)
            self.peak_kept_bytes = max(self.peak_kept_bytes, self.kept_bytes)
            weakref.finalize(home, self._free, size, home.__dict__)
        return OnCard(held, home, self)

    def _free(self, size: int, of: dict[str, Any]) -> None:
        self.used_bytes -= size
        self.time.left(Home(**of))

    def wait(self, why: str) -> None:
        """The host stands still until the current stream's work is over."""
        self.waits.append(why)
        self.time.host_waits([self.time.stream()], why)

    # ---- operators

    def answer(self, function: Any, args: Any, kwargs: Any) -> Any:
        """One operator, some of whose tensors are, or are to be, on the card."""
        name = function.overloadpacket.__name__
        if function._can_decompose():  # as in inference mode, where nothing has taken it apart before
            with Slot(self):
                return function.decompose(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            return (self._copy if name == "copy_" else self._to_copy)(function, *args, **kwargs)
        if name in ("_pin_memory", "is_pinned"):
            return self._as_pinned(args[0].clone()) if name == "_pin_memory" else self._has_pinned(args[0])
        if kwargs.get("pin_memory") and not _is_card(kwargs.get("device")):
            return self._as_pinned(function(*args, **{**kwargs, "pin_memory": None}))
        tensors = _tensors((args, kwargs))
        ours = [each for each in tensors if isinstance(each, OnCard)]
        _check(name, tensors, ours)
        if name in WAITING or (name in INDEXING and any(each.dtype == torch.bool for each in tensors[1:])):
            self.wait(name)
        to_card = _is_card(kwargs["device"]) if kwargs.get("device") is not None else bool(ours)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "cpu", "pin_memory": None} if "pin_memory" in kwargs else {**kwargs, "device": "cpu"}
        held_args, held_kwargs = _each(_held, (args, kwargs))

        def work() -> Any:
            return _convolved(function, *held_args) if name == "convolution" else function(*held_args, **held_kwargs)

        return self._placed(work, ours, _written(function, args, kwargs), str(function)) if to_card else work()

    def _placed(self, work: Callable[[], Any], ours: list[OnCard], written: list[OnCard], what: str) -> Any:
        """What the work gives, as tensors of the card; views stay in the memory that they look at, and are no work."""
        found = work()
        bases = {each.held.untyped_storage().data_ptr(): each for each in ours}
        same = {id(each.held): each for each in ours}
        fresh: list[OnCard] = []

        def place(each: Any) -> Any:
            if not isinstance(each, torch.Tensor) or id(each) in same:
                return same.get(id(each), each)
            base = bases.get(each.untyped_storage().data_ptr()) if each.numel() else None
            if base is None:
                fresh.append(self.put(each))
                return fresh[-1]
            with torch.inference_mode(base.is_inference()):  # torch wants a view to be of its base's kind
                return self.put(each, base.home)

        placed = _each(place, found)
        changed = [each.home for each in (*written, *fresh)]
        if not changed:
            return placed

        numbers = [number for number, each in enumerate(_tensors(placed)) if any(each is made for made in fresh)]

        def again() -> None:
            made = _tensors(work())
            for number, old in zip(numbers, fresh, strict=True):
                old.held.copy_(made[number])

        self.time.used(
            [each.home for each in ours if each.home not in changed], changed, what, again, [each.held for each in fresh]
        )
        return placed

    # ---- copies

    def _to_copy(self, function: Any, source: Any, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        on_card, kwargs["pin_memory"] = isinstance(source, OnCard), None
        if not (_is_card(device) or (device is None and on_card)):
            made = function(_held(source), device="cpu", **kwargs)
            if on_card:
                self._bring(made, source, made.clone(), late=non_blocking)
            return made
        held = _held(source)
        made = self.put(function(held, **kwargs))
        if not on_card:
            self._send(source, late=non_blocking)
        self.time.used([source.home] if on_card else [], [made.home], "_to_copy", lambda: made.held.copy_(held), [made.held])
        return made

    def _copy(self, function: Any, target: Any, source: Any, non_blocking: bool = False) -> Any:
        to, of = _held(target), _held(source)
        if isinstance(target, OnCard):
            if not isinstance(source, OnCard) and source.ndim:
                self._send(source, late=non_blocking)
            function(to, of)
            read = [source.home] if isinstance(source, OnCard) and source.home is not target.home else []
            self.time.used(read, [target.home], "copy_", lambda: function(to, of))
        elif isinstance(source, OnCard):
            self._bring(to, source, of.to(to.dtype, copy=True).expand_as(to), late=non_blocking and self._has_pinned(to))
        else:
            function(to, of)
        return target

    def _send(self, source: torch.Tensor, late: bool) -> None:
        """To the card: from pinned memory, which the host must leave alone until then, or it waits."""
        if not (late and self._has_pinned(source)):
            self.wait("a copy from pageable memory")
            return
        sent, before = source, source.clone()

        def arrive() -> None:
            if not torch.equal(sent, before):
                raise RuntimeError("the host changed pinned memory that was still being copied to the card")

        self.time.under_way(arrive)

    def _bring(self, made: torch.Tensor, source: OnCard, numbers: torch.Tensor, late: bool) -> None:
        """To the host: at once, or as rubbish until somebody has waited."""
        self.time.used([source.home], [], "a copy to the host")
        if late:
            made.fill_(113)
            self.time.under_way(lambda: made.copy_(numbers))
        else:
            self.wait("a copy to the host")
            made.copy_(numbers)

    def _as_pinned(self, made: torch.Tensor) -> torch.Tensor:
        self.time.refuse_in_capture("pinning memory")
        self._pinned[made.untyped_storage().data_ptr()] = made.untyped_storage()
        return made

    def _has_pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, OnCard) and tensor.untyped_storage().data_ptr() in self._pinned


class Slot(TorchDispatchMode):  # type: ignore[misc]
    """Leads what names the card to it; one for each thread."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        if torch.is_inference_mode_enabled() and function._can_decompose():  # `to`, say, whose device is no keyword
            with self:
                return function.decompose(*args, **kwargs)
        named = any(_is_card(each) for each in (*args, kwargs.get("device")) if isinstance(each, torch.device))
        if (
            named
            or kwargs.get("pin_memory")
            or name in ("_pin_memory", "is_pinned", "copy_")
            or any(isinstance(each, OnCard) for each in _tensors((args, kwargs)))
        ):
            return self._card.answer(function, args, kwargs)
        return function(*args, **kwargs)


def _check(name: str, tensors: list[torch.Tensor], ours: list[OnCard]) -> None:
    if ours and name not in INDEXING and any(each.ndim and not isinstance(each, OnCard) for each in tensors):
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found cuda:0 and cpu")
    kinds = {each.dtype for each in ours if each.is_floating_point()}
    if name in ONE_PRECISION and len(kinds) > 1:
        raise RuntimeError(f"{name}: mat1 and mat2 must have the same dtype, but got {sorted(str(kind) for kind in kinds)}")


def _convolved(function: Any, pixels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *how: Any) -> torch.Tensor:
    """In 32 bits, as a card adds up; a processor's own way with 16 takes thirty times as long."""
    made: torch.Tensor = function(pixels.float(), weight.float(), None if bias is None else bias.float(), *how)
    return made.to(pixels.dtype)


def _written(function: Any, args: Any, kwargs: Any) -> list[OnCard]:
    """The arguments that an operator writes into."""
    by_name = {wanted.name: given for wanted, given in zip(function._schema.arguments, args, strict=False)} | kwargs
    written = [by_name.get(wanted.name) for wanted in function._schema.arguments if wanted.is_write]
    return [each for given in written for each in _tensors(given) if isinstance(each, OnCard)]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [each for part in parts for each in _tensors(part)]


def _each(of: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _each(of, each) for name, each in value.items()}
    return type(value)(_each(of, each) for each in value) if type(value) in (list, tuple) else of(value)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"
