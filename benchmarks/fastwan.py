"""Our FastWan engine against diffusers' own pipeline, on the same inputs, networks and device.

    python -m benchmarks.fastwan --tiny            two CPU cores: small networks; shows that every path works
    python -m benchmarks.fastwan                   a GPU: the true architecture in bfloat16

All weights are random and made in place, so nothing is downloaded. (A) is diffusers' image-to-video pipeline with the distilled
steps as a fixed schedule and the VAE in fp32, as in the model card; (A2) the same with the VAE's decoder in 16 bits; (B) A2
with cuDNN attention and the transformer's blocks compiled. All get the same prompt embeddings and write the same H.264. Each
has its own VAE. cuDNN autotuning is on for ours, as in the engine, and off for theirs, as torch ships it. Before anything is
timed, ours and theirs must agree. Rounds are interleaved; the table shows medians. Ours copies frames to the host and encodes
them while the next ones are decoded, so its decode time includes both. Memory is the contestant's own networks plus what one
untimed request took; text encoders are not included. Encoding a prompt is timed separately, once. The floor is the time for the
arithmetic (counted, multiply-add = 2) at the GPU's measured matrix rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image

from benchmarks import fastwan_memory, fastwan_pipeline, fastwan_prompt
from benchmarks.musetalk import matrix_rate
from inference.engine import Options
from inference.engines.fastwan import float8, models, sampling, shape, text, tiny
from inference.engines.fastwan.engine import Engine
from inference.engines.fastwan.job import Prepared, Times
from inference.engines.fused import Fused
from tests.fakes import fastwan
from weights import plans

#: The published configurations, where the small ones of the tests differ.
FULL_TRANSFORMER = {
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 14336,
    "num_layers": 30,
    "rope_max_seq_len": 1024,
}
FULL_VAE = {"base_dim": 160, "decoder_base_dim": 256, "num_res_blocks": 2}
#: TFLOP of the three steps and of the decode, by width, height and frames.
TFLOP = {(1280, 704, 121): (1562.0, 2011.0), (832, 480, 121): (489.0, 891.0)}
#: How far latents and pictures of ours and theirs may be apart: rounding in 16 bits, in 32 bits without a card.
AGREED = {torch.bfloat16: 5e-2, torch.float32: 1e-4}
AGREED_OF_255 = 1.5
#: What a user may choose at the price of exactness, by the name that it has in the table.
LOSSY: dict[str, tuple[plans.Linears, plans.VideoDecoder]] = {
    "": ("bf16", "full"),
    ", fp8": ("fp8", "full"),
    ", tiny": ("bf16", "tiny"),
    ", both": ("fp8", "tiny"),
}
STAGES = ("image", "steps", "decode", "to host", "write")
HEAD = (
    f"| size | mode | | request s | to A | {' | '.join(f'{stage} s' for stage in STAGES)} | of the matrix rate, steps / decode "
    "| peak GiB |"
)


def networks(tiny: bool, device: torch.device, dtype: torch.dtype) -> models.Models:
    """Random weights of the true or of small size; no text encoder."""
    torch.manual_seed(0)
    transformer = _made(WanTransformer3DModel, {**fastwan.TRANSFORMER, **({} if tiny else FULL_TRANSFORMER)}, device, dtype)
    transformer.rope = _positions(transformer).to(device)
    autoencoder = _made(AutoencoderKLWan, {**fastwan.VAE, **({} if tiny else FULL_VAE)}, device, torch.float32)
    for part in (autoencoder.decoder, autoencoder.post_quant_conv):
        part.to(dtype)
    plan = replace(plans.PLANS[0], name="benchmark")
    nothing: dict[str, Any] = {"text": None, "tokenizer": None, "tiny": None, "plan": plan, "text_device": device}
    return models.Models(transformer=transformer, vae=autoencoder, device=device, dtype=dtype, **nothing)


def lossy(found: models.Models, linears: plans.Linears, decoder: plans.VideoDecoder) -> models.Models:
    """The same networks with what a user may choose at the price of exactness; the tiny decoder's weights are random, too."""
    transformer, autoencoder = found.transformer, found.vae
    if decoder == "tiny":  # which leaves out what the VAE decodes with
        autoencoder = fastwan_pipeline.copied(found.vae)
        for name in models.DECODES:
            setattr(autoencoder, name, None)
    if linears == "fp8":
        with torch.device("meta"):
            transformer = WanTransformer3DModel.from_config(found.transformer.config)
        float8.replaced(transformer, found.device, found.dtype)
        state: dict[str, torch.Tensor] = {}
        for name, tensor in found.transformer.state_dict().items():
            state |= float8.numbers(name, tensor, found.device)
        transformer.load_state_dict(state, assign=True)
    small = tiny.network().to(found.device, torch.float16 if found.dtype == torch.bfloat16 else found.dtype)
    plan = replace(found.plan, linears=linears, decoder=decoder)
    return replace(found, transformer=transformer, vae=autoencoder, tiny=small if decoder == "tiny" else None, plan=plan)


def _made(kind: Any, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """Numbers are such that what comes out is about as large as what goes in, as in a trained network."""
    with torch.device("meta"):
        network = kind.from_config(config)
    network.to_empty(device=device)
    for name, parameter in network.named_parameters():
        wide = any(part in name for part in models.IN_32_BITS)
        parameter.data = parameter.data.to(torch.float32 if wide else dtype)
        if parameter.ndim > 1 and "scale_shift" not in name and "gamma" not in name:
            parameter.data.normal_(0, (parameter[0].numel()) ** -0.5)
        elif name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm2.weight")):
            parameter.data.fill_(1)
        else:
            parameter.data.normal_(0, 0.1)
    return network.eval().requires_grad_(False)


def ours(engine: Engine, heard: torch.Tensor, picture: Any, size: shape.Shape, output: Path) -> dict[str, Any]:
    """One request through the engine."""
    torch.backends.cudnn.benchmark = True  # as Engine.load has it
    began = time.monotonic()
    metrics = engine.generate(prepared(heard, picture, size), output, ignore)
    wall = time.monotonic() - began
    stages = {"image": metrics.stage_times["preprocessing"], "steps": metrics.extra["denoise_s"]}
    stages |= {"decode": metrics.extra["decode_s"], "write": metrics.stage_times["postprocessing"]}
    return {"wall_s": wall, "stages": stages, "first_s": metrics.extra["first_frame_s"]}


def prepared(heard: torch.Tensor, picture: Any, size: shape.Shape) -> Prepared:
    """As the engine prepares a job whose prompt is known; the noise is drawn here, too."""
    began = time.monotonic()
    drawn = sampling.noise(fastwan_pipeline.SEED, size.latents)
    job: dict[str, Any] = {"shape": size, "picture": picture, "heard": heard, "noise": drawn}
    return Prepared(**job, prompt="", known=True, told={}, took_s=time.monotonic() - began)


def apart(engine: Engine, pipe: Any, heard: torch.Tensor, picture: Any, size: shape.Shape) -> tuple[float, float]:
    """How far our latents are from theirs, relative; and our pictures from theirs of the same latents, of 255 on average."""
    mine = engine._denoised(prepared(heard, picture, size), lambda _: None, Times(0.0))
    other = fastwan_pipeline.latents(pipe, text.filled_up(heard), picture, size).float().cpu()
    latents = float((mine - other).norm() / other.norm())
    made = np.stack(list(engine._pictures(mine, lambda _: None)))
    expected = fastwan_pipeline.decoded(pipe, mine.to(engine._loaded.device)).cpu().numpy()
    return latents, float(np.abs(made.astype(int) - expected).mean())


def compare(found: models.Models, size: shape.Shape, with_image: bool, rounds: int) -> dict[str, Any]:
    """The medians of all contestants for one shape."""
    width = found.transformer.config.text_dim
    words = torch.randn(1, 20, width, generator=torch.Generator().manual_seed(2)).to(found.dtype)
    heard, filled = words, text.filled_up(words)
    picture = painting(size) if with_image else None
    fused = Fused("first" if found.device.type == "cuda" else "off")
    pipes = fastwan_pipeline.variants(found)
    of_ours = replace(found, vae=fastwan_pipeline.copied(found.vae))
    engines = {"ours" + name: engine_of(lossy(of_ours, *kinds) if name else of_ours, fused) for name, kinds in LOSSY.items()}
    engine = engines["ours"]
    difference = apart(engine, pipes["A2"], heard, picture, size)
    if difference[0] > AGREED[found.dtype] or difference[1] > AGREED_OF_255:
        raise SystemExit(f"ours and theirs differ: latents by {difference[0]:.2g}, frames by {difference[1]:.2f} of 255")
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "o.mp4"
        contestants: dict[str, Callable[[], dict[str, Any]]] = {
            key: lambda pipe=pipe: fastwan_pipeline.run(pipe, filled, picture, size, found.device, output)  # type: ignore[misc]
            for key, pipe in pipes.items()
        }
        for key, each in engines.items():
            contestants[key] = lambda each=each: ours(each, heard, picture, size, output)  # type: ignore[misc]
        runs: dict[str, list[dict[str, Any]]] = {key: [] for key in contestants}
        peaks: dict[str, float | None] = {}
        for key, run in contestants.items():
            run()  # kernels are chosen and compiled
            peaks[key] = fastwan_memory.peak_mib(run, (pipes | engines)[key], found.device)
        for _ in range(rounds):
            for key, run in contestants.items():
                runs[key].append(run())
    medians = {key: _median(of) | {"peak_mib": peaks[key]} for key, of in runs.items()}
    mode, fp8 = "image" if with_image else "text", changed(engine, engines["ours, fp8"], heard, picture, size)
    named = {"size": f"{size.width}x{size.height}x{size.frames}", "mode": mode, "difference": difference, "fp8": fp8}
    return {**named, "runs": medians}


def changed(exact: Engine, other: Engine, heard: torch.Tensor, picture: Any, size: shape.Shape) -> float:
    """How far the latents of one engine are from those of another, relative."""
    first, second = (each._denoised(prepared(heard, picture, size), lambda _: None, Times(0.0)) for each in (exact, other))
    return float((second - first).norm() / first.norm())


def engine_of(found: models.Models, fused: Fused) -> Engine:
    engine = Engine()
    engine.configure(Options(decoder=found.plan.decoder))
    engine.use(found, fused)
    return engine


def _median(of: list[dict[str, Any]]) -> dict[str, Any]:
    """By wall time and by stage, each its own median."""
    stages = {name: statistics.median(run["stages"][name] for run in of) for name in of[0]["stages"]}
    return {**of[-1], "wall_s": statistics.median(run["wall_s"] for run in of), "stages": stages}


def _positions(network: Any) -> Any:
    """diffusers' tables of positions, which no file holds."""
    config = network.config
    return type(network.rope)(config.attention_head_dim, tuple(config.patch_size), config.rope_max_seq_len)


def painting(size: shape.Shape) -> Any:
    blots = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blots).resize((size.width, size.height), Image.Resampling.BICUBIC))


def ignore(phase: str, done: int, total: int) -> None:
    pass


def rows(result: dict[str, Any], rate: float | None) -> Iterator[str]:
    """One line per contestant: seconds, ratio to A, peak memory, and the share of the GPU's matrix rate."""
    base = result["runs"]["A"]["wall_s"]
    width, height, frames = (int(side) for side in result["size"].split("x"))
    counted = TFLOP.get((width, height, frames))
    for name, run in result["runs"].items():
        stages = run["stages"]
        shares = ""
        if rate and counted:
            shares = " / ".join(
                f"{100 * tflop / stages[stage] / rate:.0f} %" for stage, tflop in zip(("steps", "decode"), counted, strict=True)
            )
        times = " | ".join(f"{stages[stage]:.3f}" if stage in stages else "" for stage in STAGES)
        peak = "" if run["peak_mib"] is None else f"{run['peak_mib'] / 1024:.1f}"
        request = f"{run['wall_s']:.2f} | {base / run['wall_s']:.2f}"
        yield f"| {result['size']} | {result['mode']} | {name} | {request} | {times} | {shares} | {peak} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small networks, short clips: for a machine without a GPU")
    parser.add_argument("--sizes", nargs="+", default=None, metavar="WxHxF")
    parser.add_argument("--modes", nargs="+", default=["image", "text"], choices=["image", "text"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    asked = options.sizes or (["128x64x13"] if options.tiny else ["1280x704x121", "832x480x121"])
    sizes = [
        shape.Shape(width=w, height=h, frames=f) for w, h, f in ([int(side) for side in size.split("x")] for size in asked)
    ]
    device = torch.device("cuda:0" if torch.cuda.is_available() and not options.tiny else "cpu")
    found = networks(options.tiny, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    prompt = fastwan_prompt.seconds(options.tiny, device, found.dtype)
    results = [compare(found, size, mode == "image", options.rounds) for size in sizes for mode in options.modes]
    report: dict[str, Any] = {"device": str(device), "torch": torch.__version__, "prompt": prompt, "results": results}
    if device.type == "cuda":
        report |= {"card": torch.cuda.get_device_name(), "matrix_tflops": matrix_rate()}
    print(json.dumps(report) if options.json else _table(report))


def _table(report: dict[str, Any]) -> str:
    rate = report.get("matrix_tflops")
    lines = [f"{report.get('card', report['device'])}, torch {report['torch']}"]
    if rate:
        floors = ", ".join(f"{size[0]}x{size[1]}x{size[2]} {sum(tflop) / rate:.2f} s" for size, tflop in TFLOP.items())
        lines.append(f"{rate:.0f} TFLOP/s; the floor: {floors}")
    at_its_length, filled = report["prompt"]
    lines.append(f"a prompt of {fastwan_prompt.WORDS} tokens: {at_its_length:.3f} s ours, {filled:.3f} s theirs, padded")
    lines += [
        "",
        HEAD,
        "|---" * (HEAD.count("|") - 1) + "|",
        *(row for result in report["results"] for row in rows(result, rate)),
    ]
    for result in report["results"]:
        latents, pictures = result["difference"]
        lines.append(f"\n{result['size']} {result['mode']}: latents differ by {latents:.1e}, frames by {pictures:.2f} of 255")
        lines.append(f"with fp8, latents differ from ours by {100 * result['fp8']:.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
