"""Writes the published files of MuseTalk in small: same names, folders and kinds of file, other numbers and fewer of them.

write(folder) makes what `models.load(folder)` reads. All forms of the published set are there: torch's zip (UNet, VAE with
the old names of its attention, whisper with its decoder), torch's older pickle (detector, parser), and a training run's
dictionary with the objects of a library that is not installed (pose).

The numbers are random except that what looks is steady, so that an engine can be run on it: `detector` sees a face wherever
a picture is bright, `pose` finds the points of a face in the middle of any picture, `parser` takes everything for skin.
"""

from __future__ import annotations

import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from inference.engines.musetalk.networks.bisenet import BiSeNet, Output
from inference.engines.musetalk.networks.dwpose import BINS_X, BINS_Y, POINTS, DWPose
from inference.engines.musetalk.networks.s3fd import S3FD

State = dict[str, Tensor]

#: The published configurations with fewer channels, layers and heads.
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0.dev0",
    "act_fn": "silu",
    "attention_head_dim": 2,
    "block_out_channels": [8, 16, 16, 16],
    "center_input_sample": False,
    "cross_attention_dim": 384,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 8,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"],
    "model_type": "whisper",
    "d_model": 384,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 64,
    "encoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 64,
    "decoder_layers": 1,
    "max_source_positions": 1500,
    "max_target_positions": 32,
    "num_mel_bins": 80,
    "vocab_size": 200,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
}
#: Where the points of the face that `pose` finds lie, as shares of the picture that it is given.
FACE_X, FACE_Y = (0.38, 0.62), (0.30, 0.56)
#: `detector` begins to see a face between these brightnesses of a pixel, 0 to 255.
DARK, BRIGHT = 120, 140


def write(folder: Path, seed: int = 0, version: str = "1.5") -> Path:
    """Every file of a version under `folder`. Returns `folder`."""
    torch.manual_seed(seed)
    write_unet(folder, version)
    _json(folder / "sd-vae" / "config.json", VAE)
    _save(folder / "sd-vae" / "diffusion_pytorch_model.bin", old_names(AutoencoderKL.from_config(VAE).state_dict()))
    _json(folder / "whisper" / "config.json", WHISPER)
    whisper = WhisperForConditionalGeneration(WhisperConfig.from_dict(WHISPER)).state_dict()
    _save(folder / "whisper" / "pytorch_model.bin", whisper)
    trained(folder / "dwpose" / "dw-ll_ucoco_384.pth", steady_pose().state_dict())
    _save(folder / "s3fd" / "s3fd-619a316812.pth", steady_detector().state_dict(), legacy=True)
    _save(folder / "face-parse-bisent" / "79999_iter.pth", with_unused_heads(steady_parser()), legacy=True)
    return folder


def write_unet(folder: Path, version: str) -> None:
    """The only files of which each version has its own."""
    unet = ("musetalkV15", "unet.pth") if version == "1.5" else ("musetalk", "pytorch_model.bin")
    _json(folder / unet[0] / "musetalk.json", UNET)
    _save(folder.joinpath(*unet), UNet2DConditionModel.from_config(UNET).state_dict())


def old_names(state: State) -> State:
    """The VAE's tensors as they were named when it was published."""
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    found = {}
    for name, tensor in state.items():
        for new, old in names.items():
            name = name.replace(new, old)
        found[name] = tensor
    return found


def with_unused_heads(network: BiSeNet) -> State:
    """The parser's tensors with the two heads that only training used, as in the published file."""
    width = network.cp.resnet.conv1.out_channels
    heads = nn.ModuleDict({name: Output(2 * width, width) for name in ("conv_out16", "conv_out32")})
    return {**network.state_dict(), **heads.state_dict()}


# ---- networks that look, and see always the same ---------------------------------------------------------------------------


@torch.no_grad()
def steady_detector(width: int = 4) -> S3FD:
    """A face of 128 pixels at every cell that holds a pixel brighter than BRIGHT; none where all are darker than DARK."""
    network: S3FD = S3FD(width).eval()
    for parameter in network.parameters():
        parameter.zero_()
    inward = 3
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d) and not name.endswith(("_conf", "_loc")):  # the first channel: brightness, passed on
            layer.weight[0, : 3 if inward == 3 else 1, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1 / inward
            inward = 1
    for name, layer in network.named_children():
        if name.endswith("_mbox_conf"):
            layer.bias[-1] = -20.0
    means = (104 + 117 + 123) / 3
    answer = network.fc7_mbox_conf
    answer.weight[1, 0, 1, 1] = 40 / (BRIGHT - DARK)
    answer.bias[1] = -20 - (DARK - means) * 40 / (BRIGHT - DARK)
    return network


@torch.no_grad()
def steady_parser(width: int = 4) -> BiSeNet:
    """Skin everywhere."""
    network: BiSeNet = BiSeNet(width).eval()
    network.conv_out.conv.bn.weight.zero_()
    network.conv_out.conv.bn.bias.fill_(1.0)
    network.conv_out.conv_out.weight.fill_(0.0)
    network.conv_out.conv_out.weight[1] = 1.0
    return network


@torch.no_grad()
def steady_pose(width: int = 4) -> DWPose:
    """The 68 points of a face at places of their own, whatever the picture; symmetrical, as the mirrored pass expects.

    The last map is the same everywhere, so a point's 7x7 kernel shows in the map's border alone: 49 numbers that can be
    chosen freely. They are set to waves of the point's place, and the bins to the same waves: the sum peaks at the place.
    """
    network: DWPose = DWPose(width).eval()
    head = network.head
    network.backbone.stage4[2].final_conv.bn.weight.zero_()
    network.backbone.stage4[2].final_conv.bn.bias.fill_(1.0)
    places = torch.full((POINTS, 2), 0.5)
    places[23:91] = torch.tensor(face_points())
    chosen = torch.cat((_waves(places[:, 0]), _waves(places[:, 1])), 1)
    kernels = torch.eye(49).view(49, 1, 7, 7)
    seen = nn.functional.conv2d(torch.ones(1, 1, 12, 9), kernels, padding=3)[0].flatten(1).T
    basis, mixed = torch.linalg.qr(seen)
    head.final_layer.weight.zero_()
    head.final_layer.bias.zero_()
    kernel = torch.linalg.solve(mixed[:48, :48], chosen.T).T / nn.functional.silu(torch.tensor(1.0))
    head.final_layer.weight[:, 0] = nn.functional.pad(kernel, (0, 1)).view(POINTS, 7, 7)
    head.mlp[1].weight.zero_()
    head.mlp[1].weight[:48] = basis[:, :48].T
    head.gau.o.weight.zero_()
    for layer, bins, first in ((head.cls_x, BINS_X, 0), (head.cls_y, BINS_Y, 24)):
        layer.weight.zero_()
        layer.weight[:, first : first + 24] = _waves(torch.arange(bins) / bins)
    return network


def _waves(place: Tensor) -> Tensor:
    """Twelve waves of a place between 0 and 1: (n,) -> (n, 24). Two products are largest where two places are one."""
    angle = 6 * place[:, None] * torch.arange(1, 13)
    return torch.cat((angle.cos(), angle.sin()), 1)


def face_points() -> list[tuple[float, float]]:
    """68 points as shares of the picture that the network is given: jaw, brows, nose, eyes, mouth in iBUG's order."""
    jaw = [(index / 16, 0.35 + 0.65 * (1 - (abs(index - 8) / 8) ** 2)) for index in range(17)]
    brows = [(0.1 + index * 0.075, 0.15) for index in range(5)] + [(0.6 + index * 0.075, 0.15) for index in range(5)]
    nose = [(0.5, 0.3 + index * 0.1) for index in range(4)] + [(0.4 + index * 0.05, 0.65) for index in range(5)]
    eye = [(-0.1, 0.0), (-0.05, -0.03), (0.05, -0.03), (0.1, 0.0), (0.05, 0.03), (-0.05, 0.03)]
    eyes = [(centre + x, 0.32 + y) for centre in (0.27, 0.73) for x, y in eye]
    mouth = [(0.35 + index * 0.05, 0.78) for index in range(7)] + [(0.6 - index * 0.05, 0.85) for index in range(5)]
    mouth += [(0.4 + index * 0.05, 0.8) for index in range(5)] + [(0.55 - index * 0.05, 0.83) for index in range(3)]
    (left, right), (top, bottom) = FACE_X, FACE_Y
    return [(left + x * (right - left), top + y * (bottom - top)) for x, y in (*jaw, *brows, *nose, *eyes, *mouth)]


# ---- the kinds of file -----------------------------------------------------------------------------------------------------


def _json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def _save(path: Path, content: Any, *, legacy: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def trained(path: Path, state: State, *, legacy: bool = False) -> None:
    """A checkpoint as a training framework leaves it: the tensors under `state_dict`, its own objects beside them."""
    module = types.ModuleType("mmengine_of_the_fakes")
    history = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = history  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        kept = history()
        kept.__dict__.update(lengths=[1, 2], methods={"mean": getattr})  # a built-in that a careful reader refuses
        content = {
            "meta": {"epoch": 270, "config": "model = dict()"},
            "state_dict": state,
            "message_hub": {"log_scalars": {"loss": kept}, "resumed_keys": {"loss": True}},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, pickle_module=pickle, _use_new_zipfile_serialization=not legacy)
    finally:
        del sys.modules[module.__name__]
