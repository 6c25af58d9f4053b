"""The six networks of MuseTalk, loaded once from their files, for inference only."""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from errors import EngineFailed, OutOfMemory
from inference.engines import card, checkpoints
from inference.engines.fused import Fused
from inference.engines.musetalk import layout
from inference.engines.musetalk.layout import missing
from inference.engines.musetalk.networks import quick
from inference.engines.musetalk.networks.bisenet import UNUSED, BiSeNet
from inference.engines.musetalk.networks.dwpose import DWPose
from inference.engines.musetalk.networks.s3fd import S3FD
from inference.engines.musetalk.networks.unet import Unet

__all__ = ["Models", "load", "missing"]

log = logging.getLogger(__name__)

State = dict[str, Tensor]
N = TypeVar("N", bound=nn.Module)

#: A convolution and the batch norm that follows it, as the networks name them.
_FOLLOWED = (("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2"), ("conv_atten", "bn_atten"), ("0", "1"))
#: Options that the forward pass in networks/unet.py does not support, and the only value each may have.
_ONLY = {"center_input_sample": False, "class_embed_type": None, "addition_embed_type": None, "time_cond_proj_dim": None}


@dataclass(frozen=True, kw_only=True)
class Models:
    """The networks on their device, in eval mode, without gradients, convolutions channels-last.

    unet(latents (n, 8, 32, 32), speech (n, 50, 384)) -> (n, 4, 32, 32), with time step 0 built in
    vae       diffusers' AutoencoderKL: encode(…).latent_dist.mean, decode(…).sample; scaling in vae.config.scaling_factor
    whisper   transformers' WhisperEncoder, (n, 80, 3000) -> its output; hidden states on request
    pose      (n, 3, 384, 288) -> bins (n, 133, 576), (n, 133, 768)
    detector  (n, 3, h, w) -> six pairs of face logits and box offsets
    parser    (n, 3, 512, 512) -> (n, 19, 512, 512)
    dtype          of unet and vae, which generate
    looking_dtype  of the other four, which only analyse: they run once per source frame or once per speech
    fused     what our own blocks in vae and unet run with (networks/quick.py); None: these two are diffusers' own
    """

    unet: Unet
    vae: AutoencoderKL
    whisper: WhisperEncoder
    pose: DWPose
    detector: S3FD
    parser: BiSeNet
    version: str
    device: torch.device
    dtype: torch.dtype
    looking_dtype: torch.dtype
    fused: Fused | None = None


def load(
    folder: Path,
    version: str = "1.5",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    looking_dtype: torch.dtype = torch.float32,
    fused: Fused | None = None,
) -> Models:
    """Load the networks of one version ("1.5" or "1.0") from `folder`, published or converted, onto the device.

    fused: for a GPU, see Models. Raises EngineFailed, one line, for a file that is missing, truncated or not what its name
    says; OutOfMemory.
    """
    began, device = time.monotonic(), torch.device(device)
    lines = missing(folder, version)
    if lines:
        raise EngineFailed(lines[0] + (f" ({len(lines)} files are missing)" if len(lines) > 1 else ""))
    dtypes = {name: dtype if name in ("unet", "vae") else looking_dtype for name in _BUILD}
    made = {name: _ready(folder, name, version, device, dtypes[name], fused) for name in _BUILD}
    log.info("loaded MuseTalk %s from %s to %s in %.1f s", version, folder, device, time.monotonic() - began)
    return Models(**made, version=version, device=device, dtype=dtype, looking_dtype=looking_dtype, fused=fused)


def of_version(loaded: Models, folder: Path, version: str) -> Models:
    """The same networks with the UNet of another version, which is all that differs. Raises as `load` does."""
    unet = _ready(folder, "unet", version, loaded.device, loaded.dtype, loaded.fused)
    return replace(loaded, unet=unet, version=version)


def part_of(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file that the network uses, under the network's own names."""
    if name == "whisper":
        for prefix in ("model.encoder.", "encoder."):
            kept = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            if kept:
                return kept
    if name == "pose":
        return {key: tensor for key, tensor in state.items() if key.startswith(("backbone.", "head."))}
    if name == "parser":
        return {key: tensor for key, tensor in state.items() if not key.startswith(UNUSED)}
    return state


def _ready(folder: Path, name: str, version: str, device: torch.device, dtype: torch.dtype, fused: Fused | None) -> Any:
    """One network on its device."""
    network = _BUILD[name](layout.find(folder, f"unet-{version}" if name == "unet" else name))
    try:
        nn.Module.to(network.eval().requires_grad_(False), device=device, dtype=dtype)
        if name != "whisper":
            network.to(memory_format=torch.channels_last)
        if fused is not None:
            quick.quicken(name, network, fused)
        return network
    except (RuntimeError, MemoryError) as error:
        if not card.is_full(error):
            raise
        raise OutOfMemory(f"the models do not fit into the memory of {device}") from error


# ---- one builder per network -----------------------------------------------------------------------------------------------


def _unet(found: layout.Found) -> Unet:
    config = _config(found)
    odd = [name for name, only in _ONLY.items() if config.get(name, only) != only]
    if odd:
        raise EngineFailed(f"{found.config}: {odd[0]}={config[odd[0]]}: does not match MuseTalk, which has {_ONLY[odd[0]]}")
    return Unet(_filled(found, lambda: UNet2DConditionModel.from_config(config), _read(found)))


def _vae(found: layout.Found) -> AutoencoderKL:
    config = _config(found)
    scale = config.get("scaling_factor", 0.18215)  # a wrong one would only show in the faces
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise _wrong_config(found, f"scaling_factor is {str(scale)[:40]!r}, must be a positive number")
    return _filled(found, lambda: AutoencoderKL.from_config(config), _read(found))


def _whisper(found: layout.Found) -> WhisperEncoder:
    config = _config(found)
    return _filled(found, lambda: WhisperEncoder(WhisperConfig.from_dict(config)), part_of("whisper", _read(found)))


def _own(name: str, kind: type[DWPose] | type[S3FD] | type[BiSeNet]) -> Callable[[layout.Found], nn.Module]:
    """The builder of one of our own networks, whose size follows from its tensors."""

    def build(found: layout.Found) -> nn.Module:
        state = part_of(name, _read(found))
        try:
            width = kind.width_of({key: tuple(tensor.shape) for key, tensor in state.items()})
        except LookupError:
            raise _wrong(found, "it has none of the network's layers") from None
        return _without_norms(_filled(found, lambda: kind(width), state))

    return build


_BUILD: dict[str, Callable[[layout.Found], nn.Module]] = {
    "unet": _unet,
    "vae": _vae,
    "whisper": _whisper,
    "pose": _own("pose", DWPose),
    "detector": _own("detector", S3FD),
    "parser": _own("parser", BiSeNet),
}


# ---- parts of the builders -------------------------------------------------------------------------------------------------


def _read(found: layout.Found) -> State:
    return checkpoints.read(found.weights, found.remedy)


def _config(found: layout.Found) -> dict[str, Any]:
    path = found.config or found.weights
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise EngineFailed(f"{path}: cannot be read ({said}); {found.config_remedy}") from error
    except (ValueError, RecursionError) as error:
        raise EngineFailed(f"{path}: is not JSON; {found.config_remedy}", cause=str(error)[:300]) from error
    if not isinstance(config, dict):
        raise EngineFailed(f"{path}: is not a configuration; {found.config_remedy}")
    return config


def _filled(found: layout.Found, make: Callable[[], N], state: State) -> N:
    return checkpoints.filled(make, state, functools.partial(_wrong, found), functools.partial(_wrong_config, found))


def _wrong(found: layout.Found, what: str) -> EngineFailed:
    return EngineFailed(f"{found.weights}: is not the expected file: {what}; {found.remedy}")


def _wrong_config(found: layout.Found, what: str) -> EngineFailed:
    return EngineFailed(f"{found.config or found.weights}: is not the expected file: {what}; {found.config_remedy}")


def _without_norms(network: nn.Module) -> nn.Module:
    """The same network with each batch norm folded into the convolution before it."""
    network.float()
    for module in list(network.modules()):
        for before, after in _FOLLOWED:
            norm = getattr(module, after, None)
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(getattr(module, before), norm))
                setattr(module, after, nn.Identity())
    return network
