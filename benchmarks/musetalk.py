"""Our MuseTalk pipeline against the steps of the published script, with the same inputs, networks and machine.

    python -m benchmarks.musetalk --tiny            two CPU cores: small networks, the time around the model counts
    python -m benchmarks.musetalk                   a GPU: the real architecture in float16

All weights are random and created on the spot (the face networks are built to see one face), so nothing is downloaded. (R)
follows the script's steps (musetalk_loop.py), (S) is R without files and second encode; then ours, with a new video ("first")
and with a cached avatar ("known"). Rounds are interleaved; the table shows medians. "Around the model" is the time per frame
with networks that answer instantly, in wall-clock and CPU time; CPU time is valid even if other programs are running. The floor
is the frame rate that the GPU's measured matrix throughput allows at 0.79 TFLOP per frame. "Model's share" is the time that the
networks alone would take; "GPU busy" is what the driver measured.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks import gpu_busy, musetalk_loop
from inference.engine import Inputs, Options
from inference.engines.fused import Fused
from inference.engines.musetalk import models, stream
from inference.engines.musetalk.engine import Engine
from inference.engines.musetalk.networks import quick
from inference.engines.musetalk.networks.unet import Unet
from media import write
from tests.fakes import checkpoints

#: The published configurations, where they differ from the tests' small ones.
FULL_UNET = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
FULL_VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
FULL_WHISPER = {"encoder_ffn_dim": 1536}
FULL_WIDTHS = {"pose": 64, "detector": 64, "parser": 64}
#: The compute per frame at full size.
TFLOP_A_FRAME = 0.7896
RATE, SOURCE_S = Fraction(25), 10
#: The largest mean difference of a frame that counts as agreement, of 255, and how many frames are compared.
AGREED, COMPARED = 0.5, 8
AROUND = "| size | | ms per frame | vs R | CPU ms per frame | vs R |"
SPEECH = Path(__file__).resolve().parent.parent / "samples" / "speech.wav"


def networks(tiny: bool, device: torch.device, fused: Fused | None = None) -> models.Models:
    """Networks with random weights, full-size or small; with `fused`, those of our engine on a GPU."""
    torch.manual_seed(0)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    unet = UNet2DConditionModel.from_config({**checkpoints.UNET, **({} if tiny else FULL_UNET)})
    vae = AutoencoderKL.from_config({**checkpoints.VAE, **({} if tiny else FULL_VAE)})
    whisper = WhisperEncoder(WhisperConfig.from_dict({**checkpoints.WHISPER, **({} if tiny else FULL_WHISPER)}))
    widths = dict.fromkeys(FULL_WIDTHS, 4) if tiny else FULL_WIDTHS
    made = {
        "unet": Unet(unet),
        "vae": vae,
        "whisper": whisper,
        "pose": checkpoints.steady_pose(widths["pose"]),
        "detector": checkpoints.steady_detector(widths["detector"]),
        "parser": checkpoints.steady_parser(widths["parser"]),
    }
    for name, network in made.items():
        network.eval().requires_grad_(False).to(device, dtype if name in ("unet", "vae") else torch.float32)
        if name != "whisper":
            network.to(memory_format=torch.channels_last)
        if fused is not None:
            quick.quicken(name, network, fused)
    return models.Models(**made, version="1.5", device=device, dtype=dtype, looking_dtype=torch.float32, fused=fused)


def hollow(full: models.Models) -> models.Models:
    """The same networks with cached outputs: what remains is the time around the model."""

    def remembered(network: Any, shape: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
        known: dict[Any, Any] = {}

        def answer(seen: torch.Tensor, *others: Any, **named: Any) -> Any:
            if shape(seen) not in known:
                known[shape(seen)] = network(seen, *others, **named)
            return known[shape(seen)]

        return answer

    def by_shape(seen: torch.Tensor) -> Any:
        return tuple(seen.shape)

    encode, decode = remembered(full.vae.encode, by_shape), remembered(full.vae.decode, by_shape)
    looking: dict[str, Any] = {
        name: remembered(getattr(full, name), by_shape) for name in ("pose", "detector", "parser", "unet")
    }
    vae = SimpleNamespace(config=full.vae.config, encode=encode, decode=decode)
    whisper = copy.copy(full.whisper)  # its weights are asked for their device
    whisper.forward = remembered(full.whisper.forward, by_shape)
    return replace(full, vae=vae, whisper=whisper, **looking)


def person(path: Path, width: int, height: int, seconds: int) -> Path:
    """A clip with moving texture and one bright spot, which the fake networks take for a face."""
    noise = cv2.resize(np.random.default_rng(0).integers(0, 110, (90, 160, 3), np.uint8), (width + 200, height))
    spot = width // 32

    def pictures() -> Iterator[Any]:
        for frame in range(int(seconds * RATE)):
            picture = np.ascontiguousarray(noise[:, frame % 200 : frame % 200 + width])
            picture[height // 3 : height // 3 + spot, width // 2 : width // 2 + spot] = 230
            yield picture

    write.write(path, pictures(), rate=RATE, speech=None)
    return path


def speech(path: Path, seconds: float) -> Path:
    """Our sample sentence, repeated."""
    import wave

    with wave.open(str(SPEECH)) as source:
        kind, data = source.getparams(), source.readframes(source.getnframes())
    count = int(seconds * kind.framerate) * kind.sampwidth * kind.nchannels
    with wave.open(str(path), "wb") as file:
        file.setparams(kind)
        file.writeframes((data * (count // len(data) + 1))[:count])
    return path


def engine_of(found: models.Models, batch_size: int | None, folder: Path) -> Engine:
    engine = Engine()
    engine.configure(Options(batch_size=batch_size, cache_dir=folder / "avatars", cache_bytes=1 << 33))
    engine.use({"1.5": found})
    engine.warm_up()
    return engine


def ours(engine: Engine, clip: Path, sound: Path, folder: Path, *, known: bool) -> dict[str, Any]:
    if not known:
        for avatar in (folder / "avatars").glob("*"):
            avatar.unlink()
    began = time.monotonic()
    prepared = engine.prepare(Inputs(video=clip, audio=sound), {}, _ignore)
    ready = time.monotonic() - began
    metrics = engine.generate(prepared, folder / "ours.mp4", _ignore)
    wall = time.monotonic() - began
    assert prepared.cached == known
    return {
        "wall_s": wall,
        "frames": metrics.frames,
        "first_s": ready + metrics.extra["first_frame_s"],
        "stages": {"prepare": ready, **metrics.extra["busy_s"]},
        "peak_mib": metrics.peak_vram_mib,
        "encoder": metrics.extra["encoder"],
    }


def theirs(found: models.Models, engine: Engine, clip: Path, sound: Path, folder: Path, *, disk: bool) -> dict[str, Any]:
    prepared = engine.prepare(Inputs(video=clip, audio=sound), {}, _ignore)
    with tempfile.TemporaryDirectory(dir=folder) as files:
        if found.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        done, wall = musetalk_loop.run(found, prepared.job.clip, sound, prepared.job.avatar, Path(files), disk=disk)
    peak = torch.cuda.max_memory_reserved() / 2**20 if found.device.type == "cuda" else None
    return {"wall_s": wall, "frames": done.frames, "first_s": done.first_s, "stages": dict(done.stages), "peak_mib": peak}


def apart(found: models.Models, engine: Engine, clip: Path, sound: Path, folder: Path) -> float:
    """The mean difference between their frames and ours before encoding, of 255, within the boxes; frames of speech only."""
    prepared = engine.prepare(Inputs(video=clip, audio=sound), {}, _ignore)
    job = replace(prepared.job, loudness=replace(prepared.job.loudness, levels=prepared.job.loudness.levels * 0))
    done, _ = musetalk_loop.run(found, job.clip, sound, job.avatar, folder, disk=False, keep=COMPARED)
    made = stream.frames(job, engine._models["1.5"], engine._speak["1.5"], engine._speaking, stream.Busy(), lambda: None)
    differences = []
    with closing(made):
        for number, (mine, other) in enumerate(zip(made, done.kept, strict=False)):
            box = job.avatar.box(number)
            part = slice(box.y1, box.y2), slice(box.x1, box.x2)
            differences.append(float(np.abs(mine[part].astype(int) - other[part]).mean()))
    return max(differences)


def _ignore(phase: str, done: int, total: int) -> None:
    pass


def compare(
    found: models.Models,
    own: models.Models,
    size: tuple[int, int],
    seconds: float,
    options: argparse.Namespace,
    *,
    check: bool = True,
) -> dict[str, Any]:
    """The medians of all contestants for one size and length. found: their networks; own: ours. check: first
    verify that theirs and ours produce the same frames."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, sound = person(folder / "in.mp4", *size, options.source), speech(folder / "in.wav", seconds)
        engine = engine_of(own, options.batch, folder)
        difference = apart(found, engine, clip, speech(folder / "short.wav", 1), folder) if check else None
        if difference is not None and difference > AGREED:
            raise SystemExit(f"ours and theirs differ by {difference:.2f} of 255 on average: no comparison")
        contestants: dict[str, Callable[[], dict[str, Any]]] = {
            "R": lambda: theirs(found, engine, clip, sound, folder, disk=True),
            "S": lambda: theirs(found, engine, clip, sound, folder, disk=False),
            "ours, first": lambda: ours(engine, clip, sound, folder, known=False),
            "ours, known": lambda: ours(engine, clip, sound, folder, known=True),
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for contestant, run in contestants.items():
                began = time.process_time()
                with _busy(found.device) as busy:
                    done = run()
                used = {"processor_s": time.process_time() - began, "gpu_busy": statistics.fmean(busy) if busy else None}
                runs[contestant].append({**done, **used})
    medians = {name: sorted(of, key=lambda run: run["wall_s"])[len(of) // 2] for name, of in runs.items()}
    return {"size": f"{size[0]}x{size[1]}", "speech_s": seconds, "difference": difference, "runs": medians}


def _busy(device: torch.device) -> AbstractContextManager[list[float]]:
    if device.type != "cuda":
        return nullcontext([])  # asking a driver that is not there would count as a contestant's CPU time
    return gpu_busy.sampled(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def model_s(found: models.Models, engine: Engine) -> float:
    """Seconds per frame of the networks alone, with a job's batch size."""
    size = engine._speaking.size
    latents, heard = torch.zeros(size, 8, 32, 32), torch.zeros(size, 50, 384, device=found.device)
    times = []
    with torch.inference_mode():
        for _ in range(6):
            began = time.monotonic()
            engine._speak["1.5"](latents, heard)[0, 0, 0, 0].item()
            times.append(time.monotonic() - began)
    return statistics.median(times[2:]) / size


def matrix_rate() -> float:
    """TFLOP/s of a large float16 matrix product on the GPU."""
    one = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    for _ in range(3):
        one @ one
    torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(20):
        one @ one
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.monotonic() - began) / 1e12


def rows(result: dict[str, Any], alone_s: float | None) -> Iterator[str]:
    base = result["runs"]["R"]["wall_s"]
    for name, run in result["runs"].items():
        share = f"{100 * alone_s * run['frames'] / run['wall_s']:.0f} %" if alone_s else ""
        busy = "" if run["gpu_busy"] is None else f"{run['gpu_busy']:.0f} %"
        peak = "" if run["peak_mib"] is None else f"{run['peak_mib']:.0f}"
        numbers = f"{run['frames'] / run['wall_s']:.1f} | {run['first_s']:.2f} | {run['wall_s']:.2f}"
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in run["stages"].items())
        measured = f"{base / run['wall_s']:.1f} | {share} | {busy} | {peak}"
        yield f"| {result['size']} | {result['speech_s']:g} | {name} | {numbers} | {measured} | {stages} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small networks, short clips: for a machine without a GPU")
    parser.add_argument("--sizes", nargs="+", default=None, metavar="WxH")
    parser.add_argument("--seconds", nargs="+", type=float, default=None, help="speech lengths in seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=None, help="frames per batch; default: measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    sizes = [(int(size.split("x")[0]), int(size.split("x")[1])) for size in options.sizes or _sizes(options.tiny)]
    lengths = options.seconds or ([4.0] if options.tiny else [10.0, 60.0])
    options.source = 4 if options.tiny else SOURCE_S
    device = torch.device("cuda:0" if torch.cuda.is_available() and not options.tiny else "cpu")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # as the engine does when it loads
    found = networks(options.tiny, device)
    own = networks(options.tiny, device, Fused("first")) if device.type == "cuda" else found  # the same numbers again
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_of(own, options.batch, Path(folder))
    alone_s, batch = model_s(found, engine), engine._speaking.size
    results = [compare(found, own, size, seconds, options) for size in sizes for seconds in lengths]
    bare = [compare(hollow(found), hollow(own), size, lengths[0], options, check=False) for size in sizes]
    report = {"device": str(device), "batch": batch, "model_fps": 1 / alone_s, "jobs": results, "around_the_model": bare}
    if device.type == "cuda":
        rate = matrix_rate()
        report |= {"card": torch.cuda.get_device_name(), "matrix_tflops": rate, "floor_fps": rate / TFLOP_A_FRAME}
    print(json.dumps(report) if options.json else _tables(report, alone_s))


def _sizes(tiny: bool) -> list[str]:
    return ["512x512", "1280x720"] if tiny else ["512x512", "1280x720", "1920x1080"]


def _tables(report: dict[str, Any], alone_s: float) -> str:
    head = "| size | speech s | | frames/s | first frame s | job s | vs R | model's share | GPU busy | peak MiB | by stage, s |"
    lines = [f"{report['device']}, batches of {report['batch']}, the networks alone: {report['model_fps']:.1f} frames/s"]
    if "floor_fps" in report:
        lines += [f"{report['card']}: {report['matrix_tflops']:.0f} TFLOP/s, the floor: {report['floor_fps']:.0f} frames/s"]
    lines += ["", head, "|---" * 11 + "|"]
    lines += [row for result in report["jobs"] for row in rows(result, alone_s)]
    lines += ["", "Around the model (networks that answer instantly):", "", AROUND, "|---" * 6 + "|"]
    for result in report["around_the_model"]:
        base = result["runs"]["R"]
        for name, run in result["runs"].items():
            took = (
                f"{1000 * run[kind] / run['frames']:.1f} | {base[kind] / run[kind]:.1f}" for kind in ("wall_s", "processor_s")
            )
            lines.append(f"| {result['size']} | {name} | {' | '.join(took)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
