"""The GPU process: loads one engine once, and runs jobs with it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
import time
from typing import Any

from errors import EngineFailed, first_line
from inference.ahead import Ahead
from inference.engine import Engine, Options
from inference.generate import CardLost, Generate
from jobqueue import clock, spool
from jobqueue.control import Control
from jobqueue.database import ERRORS
from jobqueue.job import GENERATE, Job
from jobqueue.queue import Queue
from jobqueue.worker import Progress, work
from service import Loop, Service, recovering, run, start
from settings import Settings
from telemetry import gpu
from weights import manifest

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 5.0
#: Seconds between attempts to load an engine.
LOAD_AGAIN_S = 60.0
#: How often in a row the card may be lost, which is once more than a single job can cause; then it is left alone for this many
#: seconds: initially, and at most.
MAX_LOST, REST_S, MAX_REST_S = GENERATE.max_crashes + 1, 600.0, 3600.0
#: Errors of an incompletely installed library: torch loads others by file.
UNLOADABLE = (ImportError, OSError)


class Inference:
    """The program's state: which engine is loaded, or why none is."""

    def __init__(self, service: Service, queue: Queue, control: Control) -> None:
        self.service, self.queue, self.control = service, queue, control
        self.ahead = Ahead(queue, service.settings.data_dir)
        self.losses = 0  # of the card, in a row
        self.said: dict[str, Any] = {"engine": None, "model_loaded": False, "device": None, "reason": "the engine is loading"}

    def generate(self, stop: threading.Event) -> None:
        """Load the engine, then take jobs until stopped."""
        engine = self._load_until_it_works(stop)
        if engine is None:
            return
        settings = self.service.settings
        self.ahead.begin(engine)
        stage = Generate(engine=engine, data_dir=settings.data_dir, timeout_s=settings.JOB_TIMEOUT_SEC, ahead=self.ahead)

        def do(job: Job, progress: Progress) -> dict[str, Any]:
            try:
                result = stage.do(job, progress)
            except CardLost as error:
                self._note_loss(error)
                raise
            if self.losses:
                self.losses = 0
                self.control.card_works()
            return result

        work(GENERATE, do, self.queue, self.service.owner, stop, timeout_s=settings.JOB_TIMEOUT_SEC, grace_s=20)

    def publish(self, stop: threading.Event) -> None:
        """Publish the engine's status every few seconds; the other programs use it to judge whether a job would start."""
        while True:
            self.control.publish("inference", self.said)
            if stop.wait(PUBLISH_EVERY_S):
                return

    def _load_until_it_works(self, stop: threading.Event) -> Engine | None:
        tries = 0
        while not stop.is_set():
            try:
                self._heed_losses()
                engine = self._load()
            except EngineFailed as error:
                log.error("%s", error.message)
                self._say(model_loaded=False, reason=error.message)
                self.control.put_up("unfit", error.message, "inference")
                tries += 1
                if tries > 1 and (given := self.queue.hand_back(error)):  # a minute has not fixed it
                    log.warning("handed back %d jobs that were waiting for the GPU", len(given))
                stop.wait(LOAD_AGAIN_S)
                continue
            self.control.take_down("unfit", by="inference")
            return engine
        return None

    def _heed_losses(self) -> None:
        """Raises EngineFailed while a card that was lost too often is left alone."""
        self.losses, ago_s = self.control.card_losses()
        if self.losses < MAX_LOST:
            return
        left_s = min(REST_S * 2 ** (self.losses - MAX_LOST), MAX_REST_S) - ago_s
        if left_s > 0:
            again = clock.utc(left_s)[11:16]
            raise EngineFailed(f"the GPU failed {self.losses} times in a row; next attempt at {again} UTC; run worker doctor")

    def _note_loss(self, error: BaseException) -> None:
        """The card is lost, and this process with it."""
        try:
            if self.control.card_lost() >= MAX_LOST:
                self.control.put_up("unfit", f"the GPU keeps failing: {first_line(error)}", "inference")
        except ERRORS as full:
            log.error("the queue cannot be written: %s", full)

    def _load(self) -> Engine:
        settings = self.service.settings
        name, note = choose(settings)
        device, warning = find_device(name, settings)
        note = note or warning
        engine = _made(name, settings)
        self._say(engine=engine.name, device=device, reason=f"{engine.name} is loading")
        began = time.monotonic()
        try:
            engine.load(settings.models_dir, device)
            engine.warm_up()
        except RuntimeError as error:  # CUDA errors are RuntimeErrors
            if getattr(engine, "is_lost", bool)():
                self._note_loss(error)
                raise  # only a new process can use the card again
            reason = first_line(error)
            raise EngineFailed(f"{engine.name} cannot run on {device}: {reason}; run worker doctor") from error
        if note:
            log.warning("%s", note)
        log.info("loaded engine %s on %s in %.1f s", engine.name, device, time.monotonic() - began)
        self._say(model_loaded=True, reason=None, note=note)
        return engine

    def _say(self, **words: Any) -> None:
        self.said = {**self.said, **words}
        self.control.publish("inference", self.said)
        self.queue.bell.poke("poller", "api")


def choose(settings: Settings) -> tuple[str, str | None]:
    """Which engine to load, and a note for the operator.

    Without weights, a standalone worker runs the preview engine; a worker in a fleet only does so if configured.
    Raises EngineFailed if there is no engine to run.
    """
    name = settings.ENGINE
    lacking = _lacking(name, settings)
    if lacking is None:
        return name, None
    if settings.orchestrator_url is None and name == "musetalk":
        return "preview", f"{lacking}; using the preview engine: the mouth only follows the loudness of the speech"
    raise EngineFailed(f"{lacking}; or set ENGINE=preview to try the worker without weights")


def _lacking(name: str, settings: Settings) -> str | None:
    """Why the engine cannot be loaded, or None."""
    try:
        engine = _made(name, settings)
    except ModuleNotFoundError as error:
        lacks = (error.name or "").split(".")[0]
        if _module(name).split(".")[0] == lacks:
            return f"ENGINE={name}: this version of the worker has no such engine"
        return f"ENGINE={name} needs {lacks}, which is not installed; worker setup --engine installs it"
    except UNLOADABLE as error:
        said = f"ENGINE={name} has a dependency that cannot be loaded ({first_line(error)})"
        return f"{said}; run worker setup --engine; to reinstall, delete .venv first"
    missing = getattr(engine, "missing", None)
    try:
        files = missing(settings.models_dir) if missing else []
    except PermissionError as error:
        return f"the weights of {name} cannot be read: {error.filename}; the worker's user needs permission"
    if files:
        lacks = f"the weights of {name} are missing in {settings.models_dir} ({files[0]})"
        return f"{lacks}; download them with: worker models pull {name}"
    return None


def _made(name: str, settings: Settings) -> Engine:
    """The engine, configured from the settings."""
    engine: Engine = importlib.import_module(_module(name)).Engine()
    configure = getattr(engine, "configure", None)
    if configure is not None:
        configure(
            Options(
                fit=settings.OUTPUT_FIT,
                batch_size=int(settings.BATCH_SIZE) if settings.BATCH_SIZE.isdigit() else None,
                cache_dir=spool.cache(settings.data_dir) / engine.name,
                cache_bytes=int(min(settings.AVATAR_CACHE_GB, settings.DATA_LIMIT_GB / 4) * 1e9),
                unet=settings.MUSETALK_UNET_MODEL_PATH,
                unet_config=settings.MUSETALK_UNET_CONFIG,
                compile=settings.COMPILE,
                linears=settings.FASTWAN_LINEARS,
                decoder=settings.FASTWAN_DECODER,
            )
        )
    return engine


def _module(name: str) -> str:
    """The module of the class `Engine`: a dotted name is a module path, ours is the module `engine` of a package."""
    return name if "." in name else f"inference.engines.{name}.engine"


def find_device(name: str, settings: Settings) -> tuple[str, str | None]:
    """cuda:0 if torch is installed and sees a card, otherwise cpu; and a note for the operator.

    A card that torch cannot use (an old driver, a CPU build of torch) is reported. A standalone worker continues without it;
    a worker in a fleet would hold jobs for hours that others finish in seconds, so there EngineFailed is raised.
    """
    if importlib.util.find_spec("torch") is None:
        return "cpu", None
    try:
        torch = importlib.import_module("torch")
    except UNLOADABLE:
        return "cpu", None  # an engine that needs torch has been rejected
    if torch.cuda.is_available():
        return "cuda:0", None
    cards = gpu.gauges(settings.GPUS) if name in manifest.ENGINES else []
    if not cards:
        return "cpu", None
    try:
        torch.cuda.init()
        reason = "no reason given"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
    said = f"torch {torch.__version__} cannot use the {cards[0]['name'] or 'GPU'}: {reason}; see worker doctor"
    if settings.orchestrator_url is not None:
        raise EngineFailed(said)
    return "cpu", f"{said}; until then {name} runs on the CPU, which is very slow"


def main() -> int:
    service = start("inference")
    queue, control, _ = service.open_queue()
    program = Inference(service, queue, control)
    loops: dict[str, Loop] = {"generate": program.generate, "ahead": program.ahead.loop, "publish": program.publish}
    return run(service, {"recover": recovering(service, queue), **loops}, queue.bell.ring)


if __name__ == "__main__":
    sys.exit(main())
