"""MuseTalk's UNet for the only time step it ever runs: diffusers' blocks, called without a time embedding.

The time step is always 0, so what a block adds for it is the same for every frame. It is computed once and folded into the bias
of the convolution before it (`fold_time`). The forward pass then needs neither a time step nor a tensor created on the host,
and can be captured as a CUDA graph. The network is diffusers' UNet2DConditionModel; the published files use its parameter
names.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F


class Unet(nn.Module):
    """(n, 8, 32, 32) latents (masked, then reference) and (n, 50, 384) of speech -> (n, 4, 32, 32)."""

    def __init__(self, network: UNet2DConditionModel) -> None:
        super().__init__()
        fold_time(network)
        self.conv_in = network.conv_in
        self.down_blocks = network.down_blocks
        self.mid_block = network.mid_block
        self.up_blocks = network.up_blocks
        self.conv_norm_out = network.conv_norm_out
        self.conv_act = network.conv_act
        self.conv_out = network.conv_out

    def forward(self, latents: Tensor, speech: Tensor) -> Tensor:
        x = self.conv_in(latents)
        kept = [x]
        for block in self.down_blocks:
            x, passed = block(hidden_states=x, temb=None, **_heard(block, speech))
            kept.extend(passed)
        x = self.mid_block(x, None, **_heard(self.mid_block, speech))
        for block in self.up_blocks:
            count = len(block.resnets)
            passed, kept = tuple(kept[-count:]), kept[:-count]
            x = block(hidden_states=x, temb=None, res_hidden_states_tuple=passed, **_heard(block, speech))
        made: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return made


def _heard(block: nn.Module, speech: Tensor) -> dict[str, Any]:
    """Only some blocks attend to the speech."""
    return {"encoder_hidden_states": speech} if getattr(block, "has_cross_attention", False) else {}


@torch.no_grad()
def fold_time(network: UNet2DConditionModel) -> None:
    """Fold what each block adds for time step 0 into a bias, in float32, and remove the layers that computed it."""
    step = network.time_proj(torch.zeros(1, device=network.conv_in.weight.device))
    embedded = F.silu(network.time_embedding.float()(step))
    for block in network.modules():
        if isinstance(block, ResnetBlock2D) and block.time_emb_proj is not None:
            shift = block.time_emb_proj.float()(embedded)[0]
            bias = block.conv1.bias
            block.conv1.bias = nn.Parameter((bias.float() + shift).to(bias.dtype), requires_grad=False)
            block.time_emb_proj = None
