"""The memory model holds what the engine's own forward passes keep alive, counted on tensors without numbers at full size."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from weights import plans

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_iter  # noqa: E402

from inference.engines.fastwan import float8, models, tiny, transformer, vae  # noqa: E402
from inference.engines.fastwan.decoder import Decoder, Past, parts  # noqa: E402

SHAPES = [(121, 704, 1280), (121, 480, 832), (49, 512, 512)]


class Counted(TorchDispatchMode):
    """`peak_bytes`: the most that lived at once of what was made meanwhile; views of a network's weights are not."""

    def __init__(self, network: Any = None) -> None:
        super().__init__()
        self._there = {each.untyped_storage()._cdata for each in (network.parameters() if network else ())}
        self.peak_bytes = self._now_bytes = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._alive and key not in self._there:
            self._alive[key] = storage.nbytes()
            self._now_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._now_bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now_bytes -= self._alive.pop(key, 0)


def autoencoder() -> Any:
    """The published one, without numbers."""
    with torch.device("meta"):
        return diffusers.AutoencoderKLWan(
            **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "is_residual": True},
            **{"in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
            temperal_downsample=[False, True, True],
            **{"latents_mean": [0.0] * 48, "latents_std": [1.0] * 48},
        )


def test_the_decoder_keeps_what_the_plan_says() -> None:
    published = autoencoder().to(torch.bfloat16)
    read = [each for part in models.DECODES for each in getattr(published, part).parameters()]
    kept = sum(each.nbytes for each in (*read, *Decoder(published).merged))
    encoder = plans.FP32 * plans.ENCODER_PARAMETERS
    beside = plans.Plan(name="a test's", transformer="streamed", text="cpu", chunk=1)
    assert plans.weights_bytes(beside) - plans._transformer_bytes(beside) - encoder == kept


@pytest.mark.parametrize(("height", "width"), [(704, 1280), (512, 512)])
def test_an_encoding_needs_what_the_plan_says(height: int, width: int) -> None:
    loaded: Any = SimpleNamespace(vae=autoencoder(), device=torch.device("meta"))
    with torch.no_grad(), Counted() as counted:
        vae.encode(loaded, np.zeros((height, width, 3), np.uint8))
    assert counted.peak_bytes <= plans.encode_bytes(height, width) <= 1.3 * counted.peak_bytes


@pytest.mark.parametrize(("frames", "height", "width"), SHAPES)
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_decode_needs_what_the_plan_says_and_not_much_less(frames: int, height: int, width: int, chunk: int) -> None:
    published = autoencoder().to(torch.bfloat16)
    with torch.device("meta"):
        latents = torch.empty(1, 48, 1 + 2 * chunk, height // 16, width // 16, dtype=torch.bfloat16)
    decoder, past = Decoder(published), Past()
    with torch.no_grad(), Counted() as counted:
        for part in parts(latents.shape[2], chunk):
            decoder.part(latents[:, :, part], past)
    plan = plans.Plan(name="a test's", transformer="resident", text="cpu", chunk=chunk)
    said = plans.decode_bytes(plan, frames, height, width)
    assert counted.peak_bytes <= said <= 1.3 * counted.peak_bytes
    kept = sum(frame.nbytes for frame in past.frames.values())
    assert kept == pytest.approx(plans.CACHE_CHANNELS_PER_PX * plans.CACHE_FRAMES * height * width * plans.BF16, rel=0.01)


@pytest.mark.parametrize(("frames", "height", "width"), SHAPES)
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_decode_by_the_tiny_decoder_needs_what_the_plan_says(frames: int, height: int, width: int, chunk: int) -> None:
    with torch.device("meta"):
        latents = torch.empty(1, 48, 1 + 2 * chunk, height // 16, width // 16, dtype=torch.float16)
        network = tiny.network().half()
    decoder, past = tiny.Decoder(network), Past()
    with torch.no_grad(), Counted(network) as counted:
        for part in parts(latents.shape[2], chunk):
            vae._begun(decoder.part(latents[:, :, part], past))
    plan = plans.Plan(name="a test's", transformer="resident", text="cpu", chunk=chunk, decoder="tiny")
    said = plans.decode_bytes(plan, frames, height, width)
    assert counted.peak_bytes <= said <= 1.3 * counted.peak_bytes


@pytest.mark.parametrize("linears", ["bf16", "fp8"])
@pytest.mark.parametrize(("frames", "height", "width"), SHAPES)
def test_a_step_of_the_sampling_needs_what_the_plan_says(frames: int, height: int, width: int, linears: plans.Linears) -> None:
    plan = plans.offered(linears)[0]
    with torch.device("meta"):
        network = diffusers.WanTransformer3DModel(
            **{"num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 48, "out_channels": 48, "ffn_dim": 14_336},
            **{"text_dim": 4096, "num_layers": 2, "patch_size": (1, 2, 2)},
        ).to(torch.bfloat16)
        latents = torch.empty(1, 48, (frames - 1) // 4 + 1, height // 16, width // 16)
        text = torch.empty(1, 512, 4096)
    parameters = sum(each.numel() for each in network.blocks[0].parameters())
    assert parameters == pytest.approx(plans.BLOCK_PARAMETERS, rel=0.001)
    if linears == "fp8":
        float8.replaced(network, torch.device("cpu"), torch.bfloat16)
    assert sum(each.nbytes for each in network.blocks[0].parameters()) == pytest.approx(plans._block_bytes(plan), rel=0.001)
    loaded: Any = SimpleNamespace(transformer=network, device=latents.device, dtype=torch.bfloat16, plan=plan)
    with torch.no_grad(), Counted(network) as counted:
        transformer.Transformer(loaded, text, tuple(latents.shape), image=True)(latents, 757)
    said = plans.denoise_bytes(plan, frames, height, width)
    assert counted.peak_bytes <= said <= 1.3 * counted.peak_bytes
