"""What the worker behind the page is doing: jobs in every state, a GPU at work, links that answer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from jobqueue import clock, spool
from jobqueue.job import FETCH, GENERATE
from jobqueue.samples import samples_file
from media import glimpse
from tests.admin.program import Admin, add_done, add_failed, arrival
from tests.fakes import past
from tests.fakes.past import CARD
from tests.jobqueue.test_outbox import LOST, RUNNING

#: Finished jobs whose video takes several answers to send.
HEAVY = [f"heavy-{number}" for number in range(6)]
LONG_ID = "long-" + "x" * 400
FAILURE = {
    "message": "the GPU ran out of memory: 23.1 of 24.0 GiB used, 1.1 GiB more asked for",
    "error_type": "processing_error",
    "retryable": True,
    "stage": "inference",
    "details": {"batch_size": 16},
    "stack_trace": "Traceback (most recent call last):\n" + "  a very long line " * 20,
}


def fill(admin: Admin) -> None:
    """Jobs that are done, failed, cancelled, running and waiting; and a day of the card."""
    past.fill(samples_file(admin.data_dir), [CARD])
    add_done(admin.queue, admin.data_dir, "done-1", size=128, frames=50)
    glimpse.keep(np.full((128, 128, 3), (40, 90, 160), np.uint8), spool.output_file(admin.data_dir, "done-1"))
    for job_id in HEAVY:
        add_done(admin.queue, admin.data_dir, job_id)
        spool.output_file(admin.data_dir, job_id).write_bytes(heavy_video())
    add_failed(admin.queue, "failed-1", FAILURE)
    admin.queue.add(arrival("running-1"))
    fetch = admin.queue.take(FETCH, "poller/test")
    assert fetch
    admin.queue.done(FETCH, fetch, {"stage_times": {"download": 3.0}})
    job = admin.queue.take(GENERATE, "inference/test")
    assert job
    admin.queue.progress(job, "inferring", 0.63, 473, 750)
    for job_id in ("mistake-1", "waiting-1", LONG_ID):
        admin.queue.add(arrival(job_id))
    admin.queue.cancel("mistake-1", "sent by mistake")
    for number in range(1, 12):
        admin.outbox.keep(replace(RUNNING, job="running-1", progress=0.05 * number))
    for words in ("no answer within 10 s", "ConnectionRefusedError: " + "x" * 270):
        admin.outbox.keep(replace(LOST, job="failed-1", words=words))
    admin.outbox.keep(replace(LOST, job="failed-1", status=422, words='{"detail":[{"loc":["body","error"],"msg":"too long"}]}'))


def say_well(admin: Admin) -> None:
    """The programs' newest words: all is well. To be said again before they count as silent."""
    machine = {"ram_total_gb": 32.0, "ram_available_gb": 22.9, "disk_total_gb": 500, "disk_free_gb": 212.4}
    orchestrator = {"ok": True, "at": clock.utc(), "latency_ms": 92, "error": None}
    admin.control.publish("inference", {"engine": "musetalk", "model_loaded": True, "device": "cuda:0"})
    health = past.HEALTH | {"pcie_width": 8, "xid": {"code": 63, "at": clock.utc()}}
    told = {"gpus": [CARD], "gpu_health": [health], "system_info": machine, "orchestrator": orchestrator, "claim": {}}
    admin.control.publish("poller", told)
    admin.control.publish("uploader", {"store": "b2", "ok": True, "error": None})


@cache
def heavy_video() -> bytes:
    """Three seconds of noise, which nothing compresses, eight times over: more than a player reads ahead."""
    noise = np.random.default_rng(1)
    with TemporaryDirectory() as folder:
        file = str(Path(folder) / "noise.mp4")
        with av.open(file, "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "8"})
            stream.width = stream.height = 208
            stream.pix_fmt = "yuv420p"
            pictures = (noise.integers(0, 255, (208, 208, 3), dtype=np.uint8) for _ in range(75))
            frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
            once = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
            for again in range(8):
                for number, packet in enumerate(once):
                    copy = av.Packet(bytes(packet))
                    copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                    copy.pts = copy.dts = again * len(once) + number
                    container.mux(copy)
        return Path(file).read_bytes()
