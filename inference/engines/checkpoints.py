"""Reads a weights file in any of the published formats into a state dict, and loads tensors into a network. Never executes
anything from the file.

Formats: torch's zip (memory-mapped, not copied), torch's legacy pickle, either of them with a training framework's objects
next to the tensors, and safetensors (memory-mapped too). The resulting names are those of current library versions.
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

#: What reading a truncated file, or a file of another kind, raises.
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

#: What the libraries raise when building a network from an impossible configuration.
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

#: The only globals that a pickle may resolve; everything else becomes `Inert`.
_REAL = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}

#: The VAE's attention, as named before diffusers 0.18.
_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

#: How many batches a norm has seen: only used in training and absent from older files.
COUNTED = ".num_batches_tracked"


class Inert(dict[Any, Any]):
    """Stands in for anything in a pickle that is not a tensor: accepts every operation and does nothing."""

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


#: Passed to torch.load in place of pickle.
_PICKLE = types.SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)


def read(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises EngineFailed: one line that names the file and ends in `remedy`."""
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
        what = f"is not a complete checkpoint ({size_bytes:,} bytes)" if size_bytes else "is empty"
        raise EngineFailed(f"{path}: {what}; {remedy}", cause=str(error)[:300]) from error
    state = _state(found)
    if not state:
        raise EngineFailed(f"{path}: contains no tensors; {remedy}")
    return state


def filled(
    make: Callable[[], N],
    state: dict[str, Tensor],
    wrong: Callable[[str], EngineFailed],
    unbuildable: Callable[[str], EngineFailed] | None = None,
) -> N:
    """The network that `make` builds, using these tensors directly: nothing is initialised or copied. For inference only.

    If the tensors do not match the network exactly, raises what `wrong` returns for a line saying why. If the network cannot be
    built at all, raises what `unbuildable` (or else `wrong`) returns.
    """
    try:
        with torch.device("meta"):
            network = make()
    except _CANNOT_BE_BUILT as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise (unbuildable or wrong)(f"no network can be built from it ({why})") from error
    wanted = network.state_dict()
    counted = {name: torch.zeros_like(each, device="cpu") for name, each in wanted.items() if name.endswith(COUNTED)}
    state = counted | state
    absent = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    odd = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    kinds = ((absent, "missing"), (unknown, "unknown"), (odd, "of the wrong shape"))
    said = [f"{len(names)} tensors {what} ({names[0]})" for names, what in kinds if names]
    if said:
        raise wrong(", ".join(said))
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return network


def _unpickled(path: Path) -> Any:
    """What torch finds in a file: first with its own restricted unpickler, then with everything else made inert."""
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        # Safe all the same: `_Unpickler` builds tensors and plain containers, nothing else.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, mmap=mapped)


def _state(found: Any) -> dict[str, Tensor]:
    """The tensors under current names: taken from a training checkpoint's dictionary, without a wrapper's prefix."""
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
