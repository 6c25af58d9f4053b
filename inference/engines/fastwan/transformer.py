"""FastWan's transformer: our own forward pass over diffusers' weights.

It differs from diffusers' in two ways, neither of which changes the result: image conditioning has two rows of modulation (time
0 for the image's tokens, the step's time for all others) instead of one per token, which saves gigabytes of writes in each
block; and blocks may be streamed from host memory, the next one being copied while the current one runs.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from errors import first_line
from inference.engines import card
from inference.engines.fastwan import elementwise
from inference.engines.fastwan.float8 import LinearFloat8
from inference.engines.fastwan.models import Models
from inference.engines.fused import Fused

log = logging.getLogger(__name__)

#: Attention kernels, fastest first.
KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
#: Tokens that the first of them is tested with.
TRIED_TOKENS = 512


@dataclass(frozen=True)
class Row:
    """The tokens from `first` up to `stop` share one time, and use row `number` of the modulation."""

    first: int
    stop: int
    number: int


class Transformer:
    """velocity(x, time) for one video: text and positions are computed once for all steps."""

    def __init__(self, models: Models, text: Tensor, shape: tuple[int, ...], image: bool, fused: Fused | None = None) -> None:
        """text (1, 512, 4096); shape (1, c, t, h, w) of the latents; image: whether the first latent frame is given."""
        self._models, self._network = models, models.transformer
        self._image, self._fused = image, fused or Fused()
        self._text = self._network.condition_embedder.text_embedder(text.to(models.device, models.dtype))
        self._turn = _turns(self._network, shape, models.device)
        frames, tokens = shape[2], shape[2] * (shape[3] // 2) * (shape[4] // 2)
        first = tokens // frames if image else 0
        self._rows = [row for row in (Row(0, first, 0), Row(first, tokens, 1 if image else 0)) if row.stop > row.first]

    @torch.inference_mode()
    def __call__(self, x: Tensor, time: int) -> Tensor:
        """x (1, c, t, h, w), time out of 1000 -> velocity (1, c, t, h, w) in the network's precision."""
        models, network = self._models, self._network
        _, _, frames, height, width = x.shape
        times = torch.tensor([0.0, time] if self._image else [float(time)], device=models.device)
        told, modulation = _modulation(network.condition_embedder, times, models.dtype)
        tokens = network.patch_embedding(x.to(models.dtype)).flatten(2).transpose(1, 2).contiguous()  # (1, s, width)
        with _kernels(models):
            for block in _blocks(models):
                tokens = self._block(block, tokens, modulation)
        shift, scale = (network.scale_shift_table.float() + told[:, None].float()).unbind(1)  # (rows, width)
        tokens = self._modulated(tokens, shift, scale)
        return _put_together(network.proj_out(tokens), frames, height // 2, width // 2)

    def _block(self, block: Any, x: Tensor, modulation: Tensor) -> Tensor:
        """One block; x (1, s, width) is overwritten."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (block.scale_shift_table + modulation.float()).unbind(1)
        x = self._gated(x, self._among_themselves(block.attn1, self._modulated(x, shift, scale)), gate)
        x.add_(self._to_the_text(block.attn2, block.norm2(x.float()).type_as(x)))
        return self._gated(x, self._fed(block.ffn.net, self._modulated(x, ff_shift, ff_scale)), ff_gate)

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The normalized tokens, scaled and shifted by each row's modulation."""
        made = torch.empty_like(x)
        for row in self._rows:
            part = slice(row.first, row.stop)
            self._fused.run(elementwise.modulate, made[0, part], x[0, part], shift[row.number], scale[row.number])
        return made

    def _gated(self, x: Tensor, added: Tensor, gate: Tensor) -> Tensor:
        """x + added * gate, with each row's own gate; written into x."""
        for row in self._rows:
            part = slice(row.first, row.stop)
            self._fused.run(elementwise.gate, x[0, part], added[0, part], gate[row.number])
        return x

    def _among_themselves(self, layer: Any, x: Tensor) -> Tensor:
        """Self-attention of the tokens (1, s, width)."""
        query = self._fused.run(elementwise.turn, self._through(layer.to_q, x)[0], layer.norm_q.weight, *self._turn)[None]
        key = self._fused.run(elementwise.turn, self._through(layer.to_k, x)[0], layer.norm_k.weight, *self._turn)[None]
        return self._attended(layer, query, key, self._through(layer.to_v, x).unflatten(2, (layer.heads, -1)))

    def _to_the_text(self, layer: Any, x: Tensor) -> Tensor:
        """Cross-attention of the tokens (1, s, width) to the text."""
        query = layer.norm_q(self._through(layer.to_q, x))
        key, value = layer.norm_k(self._through(layer.to_k, self._text)), self._through(layer.to_v, self._text)
        return self._attended(layer, *(each.unflatten(2, (layer.heads, -1)) for each in (query, key, value)))

    def _attended(self, layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(1, s, heads, d) each -> (1, s, width)."""
        heard = functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (query, key, value)))
        return self._through(layer.to_out[0], heard.transpose(1, 2).flatten(2))

    def _fed(self, layers: Any, x: Tensor) -> Tensor:
        """The feed-forward network on tokens (1, s, width)."""
        hidden = functional.gelu(self._through(layers[0].proj, x), approximate=layers[0].approximate)
        return self._through(layers[2], hidden)

    def _through(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A linear layer, with weights in any precision."""
        made: Tensor = layer(x, self._fused) if isinstance(layer, LinearFloat8) else layer(x)
        return made


def _kernels(models: Models) -> AbstractContextManager[Any]:
    if models.device.type != "cuda":
        return nullcontext()
    working = _working(models.device, models.dtype, models.transformer.config.attention_head_dim)
    chosen: AbstractContextManager[Any] = sdpa_kernel(working, set_priority=True)
    return chosen


@functools.cache
def _working(device: torch.device, dtype: torch.dtype, width: int) -> list[SDPBackend]:
    """KERNELS, without cuDNN's if it fails for these heads (of this width) on this GPU: cuDNN looks for a plan on each GPU,
    may have none for a new model, and torch then does not fall back to the next kernel (pytorch issue 140930)."""
    tried = torch.zeros(1, 1, TRIED_TOKENS, width, dtype=dtype, device=device)
    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            functional.scaled_dot_product_attention(tried, tried, tried)
    except RuntimeError as error:
        if card.is_full(error):
            raise
        log.warning("cuDNN attention is disabled: %s", first_line(error))
        return KERNELS[1:]
    return KERNELS


def _modulation(embedder: Any, times: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(rows, width) and (rows, 6, width): the modulation of the output and of every block for each time."""
    told = embedder.time_embedder(embedder.timesteps_proj(times)).to(dtype)
    return told, embedder.time_proj(embedder.act_fn(told)).unflatten(1, (6, -1))


@torch.inference_mode()
def _turns(network: Any, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (s, d / 2) for every token, from freshly made diffusers tables; the network's own are empty, since it
    was created on the meta device."""
    config = network.config
    tables = WanRotaryPosEmbed(config.attention_head_dim, tuple(config.patch_size), config.rope_max_seq_len)
    cosine, sine = tables(torch.empty(shape, device="meta"))
    return tuple(table[0, :, 0, 0::2].float().contiguous().to(device) for table in (cosine, sine))


def _put_together(x: Tensor, frames: int, height: int, width: int) -> Tensor:
    """(1, s, 4 c), each token's four places -> (1, c, frames, 2 height, 2 width)."""
    x = x.view(1, frames, height, width, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return x.reshape(1, -1, frames, 2 * height, 2 * width)


def _blocks(models: Models) -> Iterator[Any]:
    """The blocks in order, each on the device while it is current."""
    blocks = models.transformer.blocks
    if models.plan.transformer == "resident":
        yield from blocks
        return
    places = [_place_for(blocks[0], models.device) for _ in range(min(2, len(blocks)))]
    copying = torch.cuda.Stream(models.device) if models.device.type == "cuda" else None
    _bring(blocks[0], places[0], copying)
    for number in range(len(blocks)):
        if copying is not None:
            torch.cuda.current_stream(models.device).wait_stream(copying)
        if number + 1 < len(blocks):
            _bring(blocks[number + 1], places[(number + 1) % len(places)], copying)
        yield places[number % len(places)]


def _place_for(block: Any, device: torch.device) -> Any:
    """An uninitialized block of the same shape on the device."""
    empty = {id(each): nn.Parameter(torch.empty_like(each, device=device), requires_grad=False) for each in block.parameters()}
    return copy.deepcopy(block, empty)


def _bring(source: nn.Module, place: nn.Module, copying: Any) -> None:
    """Copy a block's weights into its place on the GPU, in parallel with running work, once the place is free."""
    if copying is not None:
        copying.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(copying) if copying is not None else nullcontext():
        for theirs, ours in zip(source.parameters(), place.parameters(), strict=True):
            ours.copy_(theirs, non_blocking=True)
