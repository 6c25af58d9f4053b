"""Writes FastWan's published repository in small: same folders, names and kinds of file, other numbers and fewer of them.

write(folder) makes what `models.load(folder)` reads: a sharded text encoder in bfloat16, a transformer, a VAE, a tokenizer
made in code, and an index that names a pipeline which no library has.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from inference.engines.fastwan import tiny
from inference.engines.fastwan.layout import FOLDERS, TINY

WIDTH = 32
TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 48,
    "out_channels": 48,
    "text_dim": WIDTH,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 3,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 64,
}
VAE = {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 16,
    "latents_mean": [round(0.01 * number - 0.2, 2) for number in range(48)],
    "latents_std": [round(0.5 + 0.01 * number, 2) for number in range(48)],
}
TEXT = {
    "vocab_size": 256,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "is_encoder_decoder": False,
}


def write(models_dir: Path, *, seed: int = 0, gates: bool = False) -> Path:
    """Returns `models_dir`, the repository being in it."""
    torch.manual_seed(seed)
    folder = models_dir / FOLDERS[0]
    tokenizer().save_pretrained(folder / "tokenizer")
    text = UMT5EncoderModel(UMT5Config(**TEXT)).eval()
    text.to(torch.bfloat16).save_pretrained(folder / "text_encoder", max_shard_size="20KB")
    transformer = shaken(WanTransformer3DModel(**TRANSFORMER))
    if gates:
        transformer.blocks[0].register_parameter("to_gate_compress", torch.nn.Parameter(torch.zeros(4)))
    transformer.save_pretrained(folder / "transformer")
    shaken(AutoencoderKLWan(**VAE)).save_pretrained(folder / "vae")
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0).save_pretrained(
        folder / "scheduler"
    )
    index = {
        "_class_name": "WanDMDPipeline",
        "_diffusers_version": "0.35.0.dev0",
        "expand_timesteps": True,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return models_dir


def write_tiny(models_dir: Path, *, seed: int = 0) -> Path:
    """The tiny decoder's published file, in half precision, with a piece of its other half; returns its path."""
    torch.manual_seed(seed)
    path = models_dir / TINY
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"decoder.{name}": each.half() for name, each in tiny.network().state_dict().items()}
    torch.save(state | {"encoder.0.weight": torch.zeros(64, 12, 3, 3).half()}, path)
    return path


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Also the numbers that begin as all ones or zeros are random, so that none of them can be left out unnoticed."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer that knows single ASCII characters and a few words; the end mark is added as T5 does."""
    words = ["<pad>", "</s>", "<unk>", "▁", *(chr(code) for code in range(33, 127)), "▁a", "▁person", "▁smiles"]
    made = Tokenizer(models.Unigram([(word, -1.0 - len(words) / 100 + 0.01 * len(word)) for word in words], unk_id=2))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
