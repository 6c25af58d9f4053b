"""Encoding a prompt, ours and diffusers' way: done once per prompt, so not part of what benchmarks/fastwan.py repeats."""

from __future__ import annotations

import statistics
import time

import torch
from transformers import UMT5Config, UMT5EncoderModel

from inference.engines.fastwan import sampling, text
from tests.fakes import fastwan

#: The published configuration, where the small one of the tests differs.
FULL = {
    "vocab_size": 256_384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10_240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
}
#: Tokens of a prompt of two sentences.
WORDS, ROUNDS = 40, 5


def seconds(tiny: bool, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Medians for a prompt at its true length, and padded to text.TOKENS as in diffusers; random weights, freed afterwards."""
    with torch.device("meta"):
        encoder = UMT5EncoderModel(UMT5Config(**{**fastwan.TEXT, **({} if tiny else FULL)}))
    encoder.to(dtype).to_empty(device=device).eval()
    for parameter in encoder.parameters():
        parameter.data.normal_(0, 0.02)
    at_its_length, filled = (_median(encoder, length, device) for length in (WORDS, text.TOKENS))
    return at_its_length, filled


def _median(encoder: UMT5EncoderModel, length: int, device: torch.device) -> float:
    numbers = torch.full((1, length), 5, device=device)
    mask = (torch.arange(length, device=device) < WORDS).long()[None]
    took = []
    for _ in range(1 + ROUNDS):
        sampling.wait(device)
        began = time.monotonic()
        with torch.inference_mode():
            encoder(input_ids=numbers, attention_mask=mask).last_hidden_state.cpu()
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])  # in the first one kernels are chosen
