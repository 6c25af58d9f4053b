"""The engine `fastwan`: an image and a prompt become a video of a few seconds that begins with the image.

Weights are loaded once, by the memory plan that fits the GPU (weights/plans.py). If memory runs out anyway, the next smaller
plan is loaded and the job continues; only if that fails too does the job fail, with an error that may be retried. Some videos
later the initial plan is tried again: one large job, or an hour of another program, must not slow down all later ones.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from errors import EngineFailed, OutOfMemory
from inference.engine import Inputs, Metrics, Options, Progress
from inference.engines import card, identity
from inference.engines.fastwan import job, layout, models, params, sampling, shape, text, tiny, vae
from inference.engines.fastwan.decoder import PIXELS, Decoder
from inference.engines.fastwan.transformer import Transformer
from inference.engines.fused import Fused
from media import still, write
from media.still import Picture
from weights import plans

log = logging.getLogger(__name__)

T = TypeVar("T")
#: The lowest compute capability with bfloat16; without its kernels, attention alone would take 36 GB.
MIN_CAPABILITY = (8, 0)
#: The steps' share of a job's arithmetic; the rest is the decoder's: 1,562 of 3,573 TFLOP at 704x1280x121, or of
#: 1,572 with the tiny one.
STEPS_SHARE = {"full": 0.44, "tiny": 0.99}
#: Videos made with a smaller plan before the initial one is tried again: this many the first time, then twice as many each
#: time, up to the last number. Reloading takes about as long as one or two videos.
STAYS = (8, 64)
#: Seconds between progress reports of a job that waits while another job's prompt is encoded.
WAITING_S = 1.0


class Engine:
    """`prepare` runs while another job is in `generate`, so it does not use the GPU."""

    name = "fastwan"
    prepares_ahead = True
    is_lost = staticmethod(card.is_lost)

    def __init__(self) -> None:
        self._options = Options()
        self._folder, self._device, self._dtype = Path(), "cpu", torch.float32
        self._models: models.Models | None = None
        self._plan: plans.Plan | None = None  # the last one tried
        self._first: plans.Plan | None = None  # the one in use for the first job
        self._stay, self._made = STAYS[0], 0  # videos until `_first` is tried again, and those made since
        self._encoding, self._loading = threading.Lock(), threading.RLock()  # acquired in this order
        self._decoder: Decoder | tiny.Decoder | None = None
        self._fused = Fused()
        self._prompts = text.Prompts(None, "")

    def missing(self, folder: Path) -> list[str]:
        """One line for each weights file that is missing or incomplete."""
        return layout.missing(folder) + (layout.missing_tiny(folder) if self._options.decoder == "tiny" else [])

    def configure(self, options: Options) -> None:
        """Take the worker's settings; call before `missing` and `load`."""
        self._options = options

    def load(self, models_dir: Path, device: str) -> None:
        """Load the networks by the plan that fits the GPU's free memory: bfloat16 on a GPU, fp32 on a CPU."""
        on_card = device.startswith("cuda")
        if on_card:
            card.refuse_older(*card.found(device), MIN_CAPABILITY, "does not support bfloat16")
        self._folder, self._device = models_dir, device
        self._dtype = torch.bfloat16 if on_card else torch.float32
        torch.backends.cudnn.benchmark = True  # a job decodes its parts with the same few shapes
        self._fused = Fused(self._options.compile if on_card else "off")
        offered = plans.offered(self._options.linears, self._options.decoder)
        plan = plans.choose(card.free_bytes(device), offered) if on_card else replace(offered[0], name="cpu", text="cpu")
        self._use(plan)
        encoder = identity.of(("text_encoder", file) for file in layout.part(models_dir, "text_encoder").files)
        self._prompts = text.Prompts(self._options.cache_dir, encoder)

    def _use(self, plan: plans.Plan, moved: models.Moved = lambda: None) -> None:
        """Load the weights by this plan, or by the next smaller one that fits. Raises OutOfMemory. moved() is called
        repeatedly; what it raises propagates."""
        following: plans.Plan | None = plan
        while following is not None:
            self._plan, self._models, self._decoder = following, None, None
            card.let_go()
            try:
                with models.room_for(following):  # the decoder makes its own weights
                    self.use(models.load(self._folder, self._device, self._dtype, following, moved))
                return
            except OutOfMemory as error:
                following = plans.smaller(following)
                if following is None:
                    raise
                log.warning("%s; trying the next smaller plan", error.message)

    def use(self, found: models.Models, fused: Fused | None = None) -> None:
        """Use these networks; benchmarks pass their own."""
        self._fused = fused or self._fused
        self._decoder = Decoder(found.vae, self._fused) if found.tiny is None else tiny.Decoder(found.tiny)
        self._models = found

    def warm_up(self) -> None:
        """On a GPU: make one video of the default size, so that no job of that size waits for cuDNN's autotuning, and no job
        compiles. (cuDNN autotunes again for each size, and for portrait after landscape.)"""
        if self._device.startswith("cuda"):
            size = shape.Shape(width=704, height=1280, frames=121)
            latents = self._within_memory(lambda: self._denoised(job.anything(size), lambda _: None, job.Times(0)))
            self._within_memory(lambda: sum(1 for _ in self._pictures(latents, lambda _: None)))
        self._fused.settle()
        self._first = self._loaded.plan

    def prepare(self, inputs: Inputs, said: dict[str, Any], progress: Progress) -> job.Prepared:
        """Read the image, draw the noise, and encode the prompt if that is done on the CPU. Raises InvalidInput."""
        began = time.monotonic()
        moved = partial(progress, "preparing", 0, 1)
        moved()
        wanted = params.read(inputs.fields, said)
        picture = None if inputs.image is None else still.read(inputs.image)
        size = shape.of(inputs.fields, wanted.fit, picture)
        prompt = text.clean(wanted.prompt)
        heard = self._prompts.known(self._ready(moved), prompt)
        known = heard is not None
        if heard is None and self._loaded.text_device.type == "cpu":
            heard = self._heard(prompt, moved)
        return job.Prepared(
            shape=size,
            picture=None if picture is None else shape.cover(picture, size.width, size.height),
            prompt=prompt,
            heard=heard,
            known=known,
            noise=sampling.noise(wanted.seed, size.latents),
            told=params.effects(inputs.fields, said),
            took_s=time.monotonic() - began,
        )

    def generate(self, prepared: job.Prepared, output: Path, progress: Progress) -> Metrics:
        """Write the video. Progress is counted in frames, by the share of the arithmetic done; while weights are reloaded, the
        phase is "preparing"."""
        times = job.Times(time.monotonic())
        frames, steps = prepared.shape.frames, len(sampling.TIMES)
        steps_share = STEPS_SHARE[self._options.decoder]
        moved = partial(progress, "preparing", 0, 1)
        self._return(moved)
        if self._ready(moved).device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._loaded.device)
        progress("inferring", 0, frames)

        def stepped(done: int) -> None:
            progress("inferring", round(frames * steps_share * done / steps), frames)

        def decoded(done: int) -> None:
            times.decoded = time.monotonic()
            times.first_frame = times.first_frame or times.decoded
            share = steps_share + (1 - steps_share) * done / prepared.shape.latents[2]
            progress("inferring", round(frames * share), frames)

        latents = self._within_memory(lambda: self._denoised(prepared, stepped, times, moved), moved)
        if not bool(torch.isfinite(latents).all()):
            raise EngineFailed("the model's output is not a number; its weights may be damaged: worker models verify fastwan")
        written = self._within_memory(
            lambda: write.write(output, self._pictures(latents, decoded), rate=Fraction(shape.RATE), speech=None), moved
        )
        progress("encoding", frames, frames)
        return job.metrics(prepared, written, times, self._loaded)

    # ---- parts -------------------------------------------------------------------------------------------------------------

    @property
    def _loaded(self) -> models.Models:
        return self._ready(lambda: None)

    def _ready(self, moved: models.Moved) -> models.Models:
        """The networks; loaded now if they did not fit before."""
        with self._loading:
            if self._models is None and self._plan is not None:
                self._use(self._plan, moved)
            if self._models is None:
                raise EngineFailed("the engine is not loaded")
            return self._models

    def _return(self, moved: models.Moved) -> None:
        """Return to the initial plan after enough videos with a smaller one."""
        if self._first is None or self._ready(moved).plan == self._first:
            return
        self._made += 1
        if self._made <= self._stay:
            return
        name = self._loaded.plan.name
        log.info("made %d videos with the plan %s; trying %s again", self._stay, name, self._first.name)
        self._stay, self._made = min(2 * self._stay, STAYS[1]), 0
        self._anew(self._first, moved)

    def _anew(self, plan: plans.Plan, moved: models.Moved) -> None:
        """Reload the weights by another plan."""
        with _taken(self._encoding, moved), self._loading:  # a thread that encodes a prompt uses the old weights
            self._use(plan, moved)

    def _heard(self, prompt: str, moved: models.Moved) -> Tensor:
        """Encode the prompt now, one prompt at a time: on a CPU that takes minutes."""
        with _taken(self._encoding, moved):
            loaded = self._loaded
            return self._prompts.made(loaded, prompt, moved if loaded.text_device.type == "cpu" else None)

    def _denoised(
        self, prepared: job.Prepared, stepped: Callable[[int], None], times: job.Times, moved: models.Moved = lambda: None
    ) -> Tensor:
        """The video's latents, on the host: they must survive running out of GPU memory while decoding."""
        heard = self._heard(prepared.prompt, moved) if prepared.heard is None else prepared.heard
        loaded = self._loaded
        image = None if prepared.picture is None else vae.encode(loaded, prepared.picture)
        network = Transformer(loaded, text.filled_up(heard), prepared.shape.latents, image is not None, self._fused)
        sampling.wait(loaded.device)  # otherwise the image's time would count towards the first step
        times.conditioned = time.monotonic()
        latents = sampling.denoise(network, prepared.noise, image, loaded.device, stepped)
        times.denoised = time.monotonic()
        return latents.cpu()

    def _pictures(self, latents: Tensor, decoded: Callable[[int], None]) -> Iterator[Picture]:
        loaded = self._loaded
        if self._decoder is None:
            raise EngineFailed("the engine is not loaded")
        height, width = (side * PIXELS for side in latents.shape[-2:])
        chunk = plans.chunk(loaded.plan, height, width)
        return vae.pictures(loaded, self._decoder, latents, chunk, loaded.plan.tiled, decoded)

    def _within_memory(self, work: Callable[[], T], moved: models.Moved = lambda: None) -> T:
        """Run `work`; if GPU memory runs out, reload the weights by the next smaller plan and run it once more."""
        try:
            return work()
        except RuntimeError as error:
            if not card.is_full(error):
                raise
            plan = plans.smaller(self._loaded.plan)
            if plan is None:
                raise OutOfMemory(
                    "the GPU does not have enough free memory for this size, even with the smallest plan"
                ) from error
            log.warning("out of memory with the plan %s; using %s for now", self._loaded.plan.name, plan.name)
        self._anew(plan, moved)
        try:
            return work()
        except RuntimeError as error:
            if not card.is_full(error):
                raise
            plan = self._loaded.plan
            raise OutOfMemory(
                f"the GPU does not have enough free memory for this size, even with the plan {plan.name}"
            ) from error


@contextmanager
def _taken(lock: threading.Lock, moved: models.Moved) -> Iterator[None]:
    while not lock.acquire(timeout=WAITING_S):
        moved()
    try:
        yield
    finally:
        lock.release()
