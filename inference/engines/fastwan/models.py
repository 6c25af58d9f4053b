"""Loads FastWan's networks from the published repository, each where the plan puts it, for inference only.

Weights are read by name from safetensors: directly to the GPU, or memory-mapped if they stay on the CPU. diffusers' and
transformers' classes only hold the weights; `model_index.json` names a pipeline that neither library has, so it is not read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from errors import EngineFailed, OutOfMemory, first_line
from inference.engines import card, checkpoints
from inference.engines.fastwan import eight, float8, layout, tiny, wide
from weights.plans import PINNED_SLAB_BYTES, Plan

log = logging.getLogger(__name__)

Moved = Callable[[], None]

#: Parts of the transformer that stay fp32, as in diffusers: they set the scale of all others.
IN_32_BITS = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "weight_scale")
#: cuDNN versions, from and up to but excluding, whose 3D convolutions are wrong in 16 bits for large frames. torch 2.9 works
#: around them, at many times the time and memory (pytorch issues 163539, 166643).
POOR_CUDNN = (90800, 91500)
#: Alignment of tensors in a slab.
ALIGNED_BYTES = 256
#: Sparse-attention weights that one of the two published repositories may contain.
GATES = "to_gate_compress"
#: The configuration that the engine supports; any other value is a different model.
TRANSFORMER_IS = {
    "image_dim": None,
    "added_kv_proj_dim": None,
    "patch_size": [1, 2, 2],
    "eps": 1e-06,
    "qk_norm": "rms_norm_across_heads",
    "cross_attn_norm": True,
    "in_channels": 48,
    "out_channels": 48,
}
#: The parts of the VAE that are used only for decoding.
DECODES = ("decoder", "post_quant_conv")
#: No mean or standard deviation of latents is anywhere near this large.
MAX_SPREAD = 1e6
VAE_IS = {"is_residual": True, "z_dim": 48, "patch_size": 2, "scale_factor_temporal": 4, "scale_factor_spatial": 16}


@dataclass(frozen=True, kw_only=True)
class Models:
    """The networks in eval mode, without gradients.

    transformer  on `device` in `dtype` (IN_32_BITS in fp32); its blocks in pinned host memory if they are streamed
    vae          the encoder in fp32 (rounding the image's one frame shifts the whole video), the decoder in `dtype`
    tiny         the tiny decoder if the plan uses it, in fp16 on a GPU; the VAE then has no decoder
    text         on `text_device`: in `dtype`, or with 8-bit weights
    """

    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    tiny: nn.Sequential | None
    text: UMT5EncoderModel
    tokenizer: Any
    plan: Plan
    device: torch.device
    text_device: torch.device
    dtype: torch.dtype


def load(models: Path, device: str | torch.device, dtype: torch.dtype, plan: Plan, moved: Moved = lambda: None) -> Models:
    """Load the networks to where `plan` puts them. moved() is called repeatedly; what it raises propagates.

    Raises EngineFailed, one line, for a file that is missing, incomplete or the wrong one; OutOfMemory.
    """
    began, device = time.monotonic(), torch.device(device)
    lines = layout.missing(models)
    if lines:
        raise EngineFailed(lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""))
    text_device = torch.device("cpu") if plan.text == "cpu" else device
    if device.type == "cuda":
        warn_of_cudnn(torch.backends.cudnn.version())
    with room_for(plan):
        loaded = Models(
            transformer=_transformer(models, device, dtype, plan, moved),
            vae=_vae(models, device, dtype, plan, moved),
            tiny=_tiny(models, device, dtype) if plan.decoder == "tiny" else None,
            text=_text(models, text_device, dtype, plan, moved),
            tokenizer=_tokenizer(models),
            plan=plan,
            device=device,
            text_device=text_device,
            dtype=dtype,
        )
    log.info(
        "loaded FastWan from %s to %s in %.1f s, plan %s", layout.home(models), device, time.monotonic() - began, plan.name
    )
    return loaded


@contextmanager
def room_for(plan: Plan) -> Iterator[None]:
    """Turns running out of memory inside it into OutOfMemory, with the plan's name."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not card.is_full(error):
            raise
        raise OutOfMemory(f"FastWan does not fit in memory with the plan {plan.name}") from error


def warn_of_cudnn(version: int | None) -> None:
    """Log a warning if this cuDNN (90800 is 9.8) is in POOR_CUDNN."""
    if version is not None and POOR_CUDNN[0] <= version < POOR_CUDNN[1]:
        said, least = (f"{number // 10_000}.{number % 10_000 // 100}" for number in (version, POOR_CUDNN[1]))
        log.warning(
            "cuDNN %s decodes incorrectly, or slowly and with far more memory; use %s or later (requirements/engine.txt)",
            said,
            least,
        )


def _transformer(models: Path, device: torch.device, dtype: torch.dtype, plan: Plan, moved: Moved) -> WanTransformer3DModel:
    part = layout.part(models, "transformer")
    _check_config(part, TRANSFORMER_IS)
    fp8 = plan.linears == "fp8"
    first_at = torch.device("cpu") if fp8 or plan.transformer == "streamed" else device
    slabs = Slabs()

    def placed(name: str, tensor: Tensor) -> Tensor:
        if tensor.dtype != float8.KIND:
            tensor = tensor.to(torch.float32 if any(each in name for each in IN_32_BITS) else dtype)
        if name.startswith("blocks.") and plan.transformer == "streamed":
            return slabs.pinned(tensor) if device.type == "cuda" else tensor
        return tensor.to(device)

    state = _read(part, first_at, moved)
    gates = [name for name in state if GATES in name]
    if gates:
        log.warning("%s: has weights for sparse attention (%s); dense attention is used", part.folder, GATES)
    filled: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if GATES not in name:
            moved()
            becomes = float8.numbers(name, tensor, device) if fp8 else {name: tensor}
            filled |= {name: placed(name, tensor) for name, tensor in becomes.items()}

    def made() -> nn.Module:
        network = WanTransformer3DModel.from_config(part.config)
        return float8.replaced(network, device, dtype) if fp8 else network

    return _filled(part, made, filled)


class Slabs:
    """Pinned memory in slabs of PINNED_SLAB_BYTES, with tensors packed into them: pinned separately, each would be rounded up
    to the next power of two."""

    def __init__(self, pin: bool = True) -> None:
        self._pin, self._slab, self._used = pin, torch.empty(0, dtype=torch.uint8), 0

    def pinned(self, tensor: Tensor) -> Tensor:
        """A copy in pinned memory. Raises MemoryError."""
        if self._used + tensor.nbytes > len(self._slab):
            size = max(PINNED_SLAB_BYTES, tensor.nbytes)
            try:
                self._slab, self._used = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin), 0
            except RuntimeError as error:  # CUDA's only sign that host memory is short
                raise MemoryError(f"could not pin {size:,} bytes of memory: {error}") from error
        place = self._slab[self._used : self._used + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        self._used += -(-tensor.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
        return place.copy_(tensor)


def _vae(models: Path, device: torch.device, dtype: torch.dtype, plan: Plan, moved: Moved) -> AutoencoderKLWan:
    part = layout.part(models, "vae")
    _check_config(part, VAE_IS)
    _check_spread(part)
    state = _read(part, torch.device("cpu"), moved)  # in fp32 the decoder would briefly take 2.2 GB on the GPU
    kinds = dict.fromkeys(DECODES, dtype)
    if plan.decoder == "tiny":
        state = {name: tensor for name, tensor in state.items() if name.split(".")[0] not in DECODES}
    state = {name: tensor.to(device, kinds.get(name.split(".")[0], torch.float32)) for name, tensor in state.items()}

    def made() -> nn.Module:
        network = AutoencoderKLWan.from_config(part.config)
        for name in DECODES if plan.decoder == "tiny" else ():
            setattr(network, name, None)
        return network

    return _filled(part, made, state)


def _tiny(models: Path, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """fp16 has three more mantissa bits than bfloat16: as much as the lowest bits of a frame's pixels."""
    return tiny.load(models, device, torch.float16 if dtype == torch.bfloat16 else dtype)


def _text(models: Path, device: torch.device, dtype: torch.dtype, plan: Plan, moved: Moved) -> UMT5EncoderModel:
    part = layout.part(models, "text_encoder")
    if "umt5" not in str(part.config.get("model_type", "umt5")):
        raise EngineFailed(f"{part.folder / 'config.json'}: model_type is {part.config['model_type']!s:.80}, not umt5")
    state = _read(part, torch.device("cpu") if plan.text == "card8" else device, moved)
    tied = next((state[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in state), None)
    if tied is not None:
        state |= {"shared.weight": tied, "encoder.embed_tokens.weight": tied}
    network = _filled(part, lambda: UMT5EncoderModel(UMT5Config(**part.config)), state)
    network.set_input_embeddings(network.shared)  # one shared layer: two would be copied to the GPU twice, 2.1 GB each
    if plan.text == "card8":
        return eight.smaller(network, device, dtype)
    if device.type != "cpu":
        return network.to(device=device, dtype=dtype)
    return wide.widened(network) if wide.is_needed(network) else network


def _tokenizer(models: Path) -> Any:
    path = layout.home(models) / layout.TOKENIZER
    try:
        return AutoTokenizer.from_pretrained(path.parent, local_files_only=True)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise EngineFailed(layout.line(models, path.parent, f"the tokenizer cannot be read ({first_line(error)})")) from error


def _read(part: layout.Part, device: torch.device, moved: Moved) -> dict[str, Tensor]:
    """The tensors of all files of a network by name; on the CPU they are memory-mapped, not copied."""
    state: dict[str, Tensor] = {}
    for file in part.files:
        moved()
        try:
            state |= load_file(file, device=str(device))
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise EngineFailed(f"{file}: cannot be read ({error}); {layout.FETCHED}") from error
    return state


def _filled(part: layout.Part, make: Callable[[], nn.Module], state: dict[str, Tensor]) -> Any:
    def wrong(what: str) -> EngineFailed:
        described = part.folder / "config.json"
        return EngineFailed(f"{described}: does not match the weights beside it: {what}; {layout.FETCHED}")

    return checkpoints.filled(make, state, wrong)


def _check_config(part: layout.Part, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        found = part.config.get(name)
        if (list(found) if isinstance(found, list | tuple) else found) != value:
            raise EngineFailed(
                f"{part.folder / 'config.json'}: {name} is {found!s:.80}, must be {value}: this is a different model"
            )


def _check_spread(part: layout.Part) -> None:
    """Check the latents' mean and standard deviation, which only the VAE's configuration has."""
    count = VAE_IS["z_dim"]
    for name, least, kind in (("latents_mean", -MAX_SPREAD, "numbers"), ("latents_std", 0.0, "numbers above 0")):
        found = part.config.get(name)
        if not isinstance(found, list) or len(found) != count or not all(_is_number(each, least) for each in found):
            path = part.folder / "config.json"
            raise EngineFailed(f"{path}: {name} is {found!s:.80}, must be {count} finite {kind}; {layout.FETCHED}")


def _is_number(value: Any, least: float) -> bool:
    return type(value) in (int, float) and least < value < MAX_SPREAD
