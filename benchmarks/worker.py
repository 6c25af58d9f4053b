"""How busy the worker keeps a GPU: the whole worker against plain loops, with the same jobs, links, store and orchestrator.

    python -m benchmarks.worker [--jobs 20] [--rounds 3]          (after ./worker test has installed its packages)

Everything is real except the GPU and the network delay: the engine sleeps for as long as a job would take, and downloads and
uploads are as slow as --link says. The peers:

  process a job   claim, fetch, start a process that loads the weights, render, upload, report: what older workers do
  one loop        the same with the weights loaded once, everything else sequential
  the card alone  jobs times the GPU's own seconds: the upper bound

Rounds are interleaved, medians shown. The GPU's busy share is its own seconds from the start of the first job to the end of the
last one.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from jobqueue import spool
from tests.fakes import b2, clips
from tests.fakes.engines.copies import made_from
from tests.fakes.file_server import FileServer, Handler, whole
from tests.patience import free_port, until
from tests.torture.worker import ROOT, Worker
from uploader.stores.b2 import B2Store

KEY = {"X-Internal-API-Key": "benchmark"}
LIMIT_S = 1800.0
#: A separate process per job that takes as long as loading and rendering.
ALONE = "import sys, time; time.sleep(float(sys.argv[1]))"


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What a job costs, in seconds. link: each input's download, and the video's upload."""

    link: float
    load: float
    prepare: float
    render: float


@dataclass(frozen=True, kw_only=True)
class World:
    """What a worker meets."""

    folder: Path
    orchestrator: str
    files: str
    store: Any
    seconds: Seconds

    def submit(self, count: int) -> list[str]:
        params = {"prepare_s": self.seconds.prepare, "generate_s": self.seconds.render}
        body = {"engine": "musetalk", "video_url": f"{self.files}/v.mp4", "audio_url": f"{self.files}/a.wav", "params": params}
        return [str(self.ask("/jobs", body)["musetalk_job_id"]) for _ in range(count)]

    def ask(self, path: str, body: Any = None) -> Any:
        answer = requests.request(
            "GET" if body is None else "POST", self.orchestrator + path, json=body, headers=KEY, timeout=60
        )
        answer.raise_for_status()
        return answer.json()

    def is_done(self, job_id: str) -> bool:
        return bool(self.ask(f"/jobs/{job_id}")["state"] == "succeeded")


@contextmanager
def world(seconds: Seconds) -> Iterator[World]:
    def slowly(handler: Handler) -> None:
        time.sleep(seconds.link)
        whole(clips.speech() if handler.path.endswith(".wav") else clips.video())(handler)

    with tempfile.TemporaryDirectory() as name, FileServer([slowly]) as files, b2.serving(Path(name) / "store") as store:
        store.pause_s, port = seconds.link, free_port()
        command = [sys.executable, "-m", "orchestrator", "--port", str(port), "--data", f"{name}/orchestrator"]
        with subprocess.Popen(
            [*command, "--api-key", KEY["X-Internal-API-Key"]], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            here = World(
                folder=Path(name),
                orchestrator=f"http://127.0.0.1:{port}",
                files=files.url("").rstrip("/"),
                store=store,
                seconds=seconds,
            )
            try:
                until(lambda: answers(here))
                yield here
            finally:
                server.kill()


def answers(here: World) -> bool:
    try:
        return requests.get(f"{here.orchestrator}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def ours(here: World, jobs: int) -> tuple[float, float]:
    """Seconds until all jobs are reported to the orchestrator, and the fraction of the time that the engine was rendering."""
    folder = here.folder / f"worker-{time.monotonic_ns()}"
    variables = {
        "WORKER_MODE": "main",
        "WORKER_ID": "ours",
        "ENGINE": "tests.fakes.engines.prepares",
        "ORCHESTRATOR_BASE_URL": here.orchestrator,
        "INTERNAL_API_KEY": KEY["X-Internal-API-Key"],
        "HTTP_PORT": str(free_port()),
        "B2_KEY_ID": here.store.key_id,
        "B2_APP_KEY": here.store.app_key,
        "B2_BUCKET_NAME": here.store.bucket,
        "B2_REALM": here.store.url,
    }
    worker = Worker(folder, variables)
    folder.mkdir()
    worker.begin()
    try:
        warm_up = here.submit(1)
        until(lambda: here.is_done(warm_up[0]), LIMIT_S)  # startup and loading are not part of the comparison
        before = spans(worker.data_dir)
        began = time.monotonic()
        ids = here.submit(jobs)
        until(lambda: all(map(here.is_done, ids)), LIMIT_S)
        took_s = time.monotonic() - began
        return took_s, share(spans(worker.data_dir)[len(before) :])
    finally:
        worker.end()


def spans(data_dir: Path) -> list[tuple[float, float]]:
    """When the engine rendered, from its own log."""
    lines = [line.split() for line in (data_dir / "ledger").read_text().splitlines()]
    begins, ends = ([float(line[0]) for line in lines if line[3] == word] for word in ("begin", "end"))
    return list(zip(begins, ends, strict=False))


def share(rendered: list[tuple[float, float]]) -> float:
    return sum(end - begin for begin, end in rendered) / (rendered[-1][1] - rendered[0][0])


def loop(here: World, jobs: int, a_process_each: bool) -> tuple[float, float]:
    """The same for a plain loop."""
    seconds, rendered = here.seconds, list[tuple[float, float]]()
    store = B2Store(here.store.key_id, here.store.app_key, here.store.bucket, here.store.url)
    store.check()
    output = here.folder / "output.mp4"
    began = time.monotonic()
    here.submit(jobs)
    claim = {"worker_id": "loop", "worker_type": "main", "gpu_class": "none", "supported_engines": ["musetalk"]}
    while (job := here.ask("/internal/main/jobs/claim", claim)["job"]) is not None:
        video, sound = (requests.get(job[name], timeout=60).content for name in ("video_url", "audio_url"))
        if a_process_each:
            subprocess.run([sys.executable, "-c", ALONE, str(seconds.load + seconds.prepare)], check=True)
        else:
            time.sleep(seconds.prepare)
        begin = time.monotonic()
        time.sleep(seconds.render)
        rendered.append((begin, time.monotonic()))
        output.write_bytes(made_from(video, sound))
        name = f"avatar/outputs/{job['musetalk_job_id']}.mp4"
        stored = store.put(output, name, "video/mp4", spool.sha1_of(output), lambda *_: None)
        report(here, job, stored)
    return time.monotonic() - began, share(rendered)


def report(here: World, job: Any, stored: Any) -> None:
    body = {
        "worker_id": "loop",
        "status": "succeeded",
        "progress": 1.0,
        "phase": "completed",
        "output_url": stored.url,
        "b2_bucket": stored.bucket,
        "b2_file_name": stored.file_name,
    }
    here.ask(f"/internal/jobs/{job['musetalk_job_id']}/progress", body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", type=float, default=1.0, help="seconds for each download, and for the video's upload")
    parser.add_argument("--load", type=float, default=4.0, help="seconds to load the weights")
    parser.add_argument("--prepare", type=float, default=1.0, help="seconds of work before the GPU's part")
    parser.add_argument("--render", type=float, default=2.0, help="seconds on the GPU")
    asked = parser.parse_args()
    seconds = Seconds(link=asked.link, load=asked.load, prepare=asked.prepare, render=asked.render)
    workers: dict[str, Callable[[World, int], tuple[float, float]]] = {
        "process a job": lambda here, jobs: loop(here, jobs, True),
        "one loop": lambda here, jobs: loop(here, jobs, False),
        "ours": ours,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    with world(seconds) as here:
        for _, (name, run) in itertools.product(range(asked.rounds), workers.items()):
            found[name].append(run(here, asked.jobs))
            print(f"{name}: {found[name][-1][0]:.1f} s, GPU busy {found[name][-1][1]:.1%}", file=sys.stderr)
    medians = {name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in found.items()}
    slowest = medians["process a job"][0]
    print(f"{asked.jobs} jobs; {seconds}\n\n{'':16}{'jobs/h':>8} {'ratio':>6} {'GPU busy':>9}")
    for name, (took_s, busy) in [*medians.items(), ("the card alone", [asked.jobs * seconds.render, 1.0])]:
        print(f"{name:16}{asked.jobs / took_s * 3600:8.0f} {slowest / took_s:6.2f} {busy:9.1%}")


if __name__ == "__main__":
    main()
