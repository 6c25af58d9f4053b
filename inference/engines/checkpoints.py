"""Reads a file of weights, whichever of the published forms it has, into names and tensors, and tensors into a network. Runs
nothing that the file says.

Forms: torch's zip (mapped into memory, not copied), torch's older pickle, either with a training framework's objects beside
the tensors, and safetensors (mapped as well). The names that come out are those of today's libraries.
"""

from __future__ import annotations

import pickle
import re
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import Tensor, nn

from errors import EngineFailed

N = TypeVar("N", bound=nn.Module)

#: What reading a file that is cut off, or something else, raises.
_FAULTS = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)

#: What building a network by a configuration that none can have raises, somewhere in the libraries.
_CANNOT_BE_BUILT = (
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    StrictDataclassError,
)

#: The only things a pickle may name that become what they are; everything else becomes `Inert`.
_REAL = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}

#: The VAE's attention, as it was named before diffusers 0.18.
_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

#: How many batches a norm has seen, which only training asks and older files lack.
COUNTED = ".num_batches_tracked"


class Inert(dict[Any, Any]):
    """Stands for whatever a pickle names that is not a tensor: takes everything that is done to it and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]  # it may be a key
        return id(self)

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            return getattr(torch, name)  # a storage's kind: the older pickle names it so
        return _REAL.get((module, name), Inert)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


#: What torch.load is given in pickle's place.
_PICKLE = types.SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)


def read(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises EngineFailed: one line with the file, ending in `remedy`."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
    except FileNotFoundError:
        raise EngineFailed(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise EngineFailed(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); {remedy}") from error
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except MemoryError:
        raise EngineFailed(f"{path}: does not fit into memory") from None
    except _FAULTS as error:
        what = f"is not a whole checkpoint ({size_bytes:,} bytes)" if size_bytes else "is empty"
        raise EngineFailed(f"{path}: {what}; {remedy}", cause=str(error)[:300]) from error
    state = _state(found)
    if not state:
        raise EngineFailed(f"{path}: holds no tensors; {remedy}")
    return state


def filled(
    make: Callable[[], N],
    state: dict[str, Tensor],
    wrong: Callable[[str], EngineFailed],
    unbuildable: Callable[[str], EngineFailed] | None = None,
) -> N:
    """The network that `make` describes with these very tensors in it: nothing is initialised or copied. It will not learn.

    Raises what `wrong` makes of a line that says why these are not all of its tensors and no others, and what `unbuildable`
    (else `wrong`) makes of one that says why there can be no such network.
    """
    try:
        with torch.device("meta"):
            network = make()
    except _CANNOT_BE_BUILT as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise (unbuildable or wrong)(f"no network can be built by it ({why})") from error
    wanted = network.state_dict()
    counted = {name: torch.zeros_like(each, device="cpu") for name, each in wanted.items() if name.endswith(COUNTED)}
    state = counted | state
    absent = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    odd = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    kinds = ((absent, "missing"), (unknown, "unknown"), (odd, "of another shape"))
    said = [f"{len(names)} tensors {what} ({names[0]})" for names, what in kinds if names]
    if said:
        raise wrong(", ".join(said))
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return network


def _unpickled(path: Path) -> Any:
    """What torch finds in a file: first as its own restricted reader sees it, then with everything else made inert."""
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        # Safe all the same: `_Unpickler` builds tensors and plain containers, nothing else.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, mmap=mapped)


def _state(found: Any) -> dict[str, Tensor]:
    """The tensors by today's names: out of a training run's dictionary, without the prefix of a wrapper."""
    if not isinstance(found, dict):
        return {}
    if isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return dict(_renamed(name, tensor) for name, tensor in tensors.items())


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    match = _OLD_ATTENTION.search(name)
    if not match:
        return name, tensor.detach()
    name = f"{name[: match.start()]}{match[1]}.{_NEW_ATTENTION[match[2]]}.{match[3]}"
    return name, tensor.detach().flatten(1) if match[3] == "weight" else tensor.detach()  # some were 1x1 convolutions
