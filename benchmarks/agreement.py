"""How far FastWan's inexact options are from the exact ones: FASTWAN_LINEARS=fp8 and FASTWAN_DECODER=tiny.

    python -m benchmarks.agreement --models DIR [--image FILE --prompt TEXT]     with the trained weights in DIR
    python -m benchmarks.agreement --size 64x64x5                                with random ones of the true architecture

The same job is run with each option: same image, prompt and noise. Reported are the relative difference of fp8's latents, and
the PSNR of the frames against the exact ones in decibels (at 40 a difference is hard to see, at 30 easy). Random weights say
nothing about the tiny decoder's frames, so only latents are compared then. With --models it needs the memory of one FastWan at
a time; without, 20 GB on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fastwan import changed, engine_of, ignore, lossy, networks, painting
from inference.engine import Inputs, Options
from inference.engines.fastwan import shape
from inference.engines.fastwan.engine import Engine
from inference.engines.fastwan.job import Times
from inference.engines.fused import Fused

Pictures = NDArray[np.uint8]
PROMPT = "a person looks into the camera and smiles"


def of_random(size: shape.Shape, device: str) -> dict[str, float]:
    """fp8 at the true architecture."""
    found = networks(False, torch.device(device), torch.bfloat16)
    heard = torch.randn(1, 20, 4096, generator=torch.Generator().manual_seed(2)).bfloat16()
    engines = [engine_of(each, Fused()) for each in (found, lossy(found, "fp8", "full"))]
    return {"latents_fp8": changed(engines[0], engines[1], heard, painting(size), size)}


def of_trained(folder: Path, size: shape.Shape, image: Path | None, prompt: str, device: str) -> dict[str, float]:
    """Both choices, one engine after the other: no two need fit the card."""
    exact = _engine(folder, device)
    latents = _latents(exact, size, image, prompt)
    expected = _pictures(exact, latents)
    del exact
    eighth = _engine(folder, device, linears="fp8")
    other = _latents(eighth, size, image, prompt)
    shown = _pictures(eighth, other)
    del eighth
    drawn = _pictures(_engine(folder, device, decoder="tiny"), latents)
    return {
        "latents_fp8": float((other - latents).norm() / latents.norm()),
        "pictures_fp8_db": decibels(shown, expected),
        "pictures_tiny_db": decibels(drawn, expected),
    }


def decibels(made: Pictures, expected: Pictures) -> float:
    """PSNR of 8-bit pictures; infinite if they are the same."""
    square = float(np.mean((made.astype(np.float64) - expected) ** 2))
    return math.inf if square == 0 else 10 * math.log10(255**2 / square)


def _engine(folder: Path, device: str, **choices: Any) -> Engine:
    engine = Engine()
    engine.configure(Options(compile="off", **choices))
    engine.load(folder, device)
    return engine


def _latents(engine: Engine, size: shape.Shape, image: Path | None, prompt: str) -> torch.Tensor:
    fields = {"prompt": prompt, "width": size.width, "height": size.height, "num_frames": size.frames}
    prepared = engine.prepare(Inputs(image=image, fields=fields), {}, ignore)
    return engine._denoised(prepared, lambda _: None, Times(0.0))


def _pictures(engine: Engine, latents: torch.Tensor) -> Pictures:
    return np.stack(list(engine._pictures(latents, lambda _: None)))


def _lines(said: dict[str, Any]) -> Iterator[str]:
    yield f"{said['size']}, {said['weights']} weights, {said['device']}"
    yield f"fp8: latents differ by {100 * said['latents_fp8']:.1f} %"
    if "pictures_fp8_db" in said:
        yield f"fp8: frames are at {said['pictures_fp8_db']:.1f} dB"
        yield f"tiny: frames are at {said['pictures_tiny_db']:.1f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, metavar="DIR", help="MODELS_DIR with the trained weights")
    parser.add_argument("--size", default="832x480x25", metavar="WxHxF")
    parser.add_argument("--image", type=Path, help="the first frame; without it, the video is made from the prompt alone")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height, frames = (int(side) for side in options.size.split("x"))
    size = shape.Shape(width=width, height=height, frames=frames)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if options.models is None:
        found = of_random(size, device)
    else:
        found = of_trained(options.models, size, options.image, options.prompt, device)
    weights = "random" if options.models is None else "trained"
    said = {"size": options.size, "weights": weights, "device": device, "torch": torch.__version__, **found}
    print(json.dumps(said) if options.json else "\n".join(_lines(said)))


if __name__ == "__main__":
    main()
