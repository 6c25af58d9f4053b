"""The real programs under everything that may befall them, for two minutes; slow, run with `-m slow`.

The seed is printed; give it again with TORTURE_SEED to see the same deeds.
"""

from __future__ import annotations

import functools
import http.server
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from jobqueue import faults
from tests.fakes import b2, clips
from tests.fakes.engines.copies import made_from
from tests.patience import free_port
from tests.torture.check import gaps, violations
from tests.torture.nemesis import DEEDS, TWINS, Nemesis
from tests.torture.proxy import Proxy
from tests.torture.worker import ROOT, Worker, copy_of_the_tree

KEY = {"X-Internal-API-Key": "torture-key"}
#: How many different clips of each kind there are; a job is a pair of them.
KINDS = 16

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Scene:
    """Everything around the worker, all on loopback."""

    folder: Path
    proxy: Proxy
    store: Any
    orchestrator: str
    media: str
    seed: int

    def variables(self, **more: str) -> dict[str, str]:
        return {
            "WORKER_MODE": "buffer",
            "BUFFER_WORKER_ID": "tortured",
            "BUFFER_CAPACITY": "12",
            "BUFFER_POLL_INTERVAL_SEC": "0.2",
            "HEARTBEAT_INTERVAL_SEC": "1",
            "ORCHESTRATOR_BASE_URL": self.proxy.url,
            "INTERNAL_API_KEY": KEY["X-Internal-API-Key"],
            "ENGINE": "tests.fakes.engines.copies",
            "HTTP_PORT": str(free_port()),
            "B2_KEY_ID": self.store.key_id,
            "B2_APP_KEY": self.store.app_key,
            "B2_BUCKET_NAME": self.store.bucket,
            "B2_REALM": self.store.url,
            **more,
        }

    def submit(self, number: int, step_s: float = 0.01) -> None:
        body = {
            "params": {"step_s": step_s},
            "musetalk_job_id": f"job-{number:04d}",
            "engine": "musetalk",
            "buffer": True,
            "video_url": f"{self.media}/v{number % KINDS}.mp4",
            "audio_url": f"{self.media}/a{number // KINDS}.wav",
        }
        requests.post(f"{self.orchestrator}/jobs", json=body, headers=KEY, timeout=20).raise_for_status()

    def jobs(self, count: int) -> list[dict[str, Any]]:
        urls = [f"{self.orchestrator}/jobs/job-{number:04d}" for number in range(count)]
        return [dict(requests.get(url, headers=KEY, timeout=20).json()) for url in urls]

    def unfinished(self) -> int:
        found = 0
        for state in ("queued", "claimed", "running"):
            url = f"{self.orchestrator}/jobs?state={state}&limit=1000"
            found += len(requests.get(url, headers=KEY, timeout=20).json()["jobs"])
        return found

    def expected(self, count: int) -> dict[str, bytes]:
        videos = [clips.video(kind) for kind in range(KINDS)]
        sounds = [clips.speech(kind) for kind in range(count // KINDS + 1)]
        return {f"job-{n:04d}": made_from(videos[n % KINDS], sounds[n // KINDS]) for n in range(count)}


@contextmanager
def scene(folder: Path, count: int, seed: int) -> Iterator[Scene]:
    media = folder / "media"
    media.mkdir()
    for kind in range(KINDS):
        (media / f"v{kind}.mp4").write_bytes(clips.video(kind))
    for kind in range(count // KINDS + 1):
        (media / f"a{kind}.wav").write_bytes(clips.speech(kind))
    handler = functools.partial(_Quiet, directory=str(media))
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    port = free_port()
    command = [sys.executable, "-m", "orchestrator", "--port", str(port), "--data", str(folder / "orchestrator")]
    command += ["--api-key", KEY["X-Internal-API-Key"], "--silence-s", "12", "--max-requeues", "1000"]
    orchestrator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    proxy = Proxy(port, seed)
    try:
        with b2.serving(folder / "store", seed=seed) as store:
            here = Scene(folder, proxy, store, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{files.server_port}", seed)
            _wait_for(f"{here.orchestrator}/health")
            yield here
    finally:
        proxy.close()
        orchestrator.kill()
        orchestrator.wait()
        files.shutdown()


def torture(
    here: Scene,
    worker: Worker,
    count: int,
    harm_s: float,
    calm_s: float,
    deeds: dict[str, int] = DEEDS,
    twins: tuple[str, ...] = TWINS,
    step_s: float = 0.01,
    p_lie: float = 0.05,
) -> list[str]:
    """Submit jobs, do harm for harm_s seconds, then leave everything in peace for up to calm_s; what was violated."""
    for number in range(count):
        here.submit(number, step_s)
    nemesis = Nemesis(worker, here.seed, deeds, twins)
    here.proxy.faulty = True
    here.store.faults(p_503=0.05, p_cut=0.05, p_lose_answer=0.05, p_lie=p_lie)
    worker.begin()
    nemesis.begin()
    deadline = time.monotonic() + harm_s
    while time.monotonic() < deadline and here.unfinished():
        time.sleep(0.5)
    nemesis.end()
    here.proxy.faulty = False
    here.store.faults()
    deadline = time.monotonic() + calm_s
    while time.monotonic() < deadline and here.unfinished():
        time.sleep(0.5)
    time.sleep(3)  # the last answers reach the worker's own queue
    code = worker.end()
    jobs = here.jobs(count)
    objects = here.store.objects()
    found = violations(jobs, here.expected(count), objects, worker.data_dir)
    plugs = worker.restarts + nemesis.deeds.get("plug", 0)
    found += gaps(here.proxy.heartbeats, plugs) + ([f"exit code {code} after SIGTERM"] if code else [])
    states = {state: sum(job["state"] == state for job in jobs) for state in {job["state"] for job in jobs}}
    print(
        f"seed {here.seed}: {count} jobs {states}, deeds {nemesis.deeds}, {worker.restarts} restarts of the container,"
        f" faults met {here.proxy.met}, {len(found)} violations"
    )
    return found


def _seed() -> int:
    return int(os.environ.get("TORTURE_SEED") or random.randrange(10**6))


def test_nothing_is_lost_whatever_is_killed_stopped_or_cut_off(tmp_path: Path) -> None:
    with scene(tmp_path, 240, _seed()) as here:
        found = torture(here, Worker(tmp_path, here.variables()), 240, harm_s=75, calm_s=120)
    assert not found, "\n".join(found)


def test_a_death_at_each_named_point_changes_nothing_but_the_time(tmp_path: Path) -> None:
    with scene(tmp_path, 24, _seed()) as here:
        worker = Worker(tmp_path, here.variables(KILL_AT="all", KEEP_DAYS="0.00001"))
        for number in range(24):
            here.submit(number)
        worker.begin()
        deadline = time.monotonic() + 150
        waiting = set(faults.POINTS)
        while time.monotonic() < deadline and (here.unfinished() or waiting):
            waiting = {point for point in waiting if not faults.marker(point, worker.data_dir).exists()}
            time.sleep(0.5)
        time.sleep(3)
        worker.end()
        found = violations(here.jobs(24), here.expected(24), here.store.objects(), worker.data_dir)
        found += [f"nobody passed {point}" for point in sorted(waiting)]
    assert not found, "\n".join(found)


#: Lines of the product that are taken out, each to see that the torture notices. Without the fence two copies of a program
#: work side by side: no owner in the statements, no lock, and no socket that only one process can have.
MUTANTS = {
    "no fence": {
        "jobqueue/statements.py": ("state = :state and owner = :owner", ":state is not null and :owner is not null"),
        "jobqueue/wake.py": ("bind(self._address(program))", "bind(self._address(program + str(id(self))))"),
        "service.py": ("        os.close(handle)\n        return False", "        pass"),
    },
    "no object check": {"uploader/stores/b2.py": b2.MUTANT_WITHOUT_CHECK},
}


#: The harm that each of them is most open to, so that it is all but certain to show.
OPEN_TO: dict[str, dict[str, Any]] = {
    # a job put back by a second copy waits two seconds: it must still be worked on by the first one then
    "no fence": {"deeds": {"stop": 20, "twin": 80}, "twins": ("inference",), "count": 20, "step_s": 0.4},
    "no object check": {"p_lie": 0.4, "count": 48, "step_s": 0.12},
}


#: How often a mutant is tortured, each time by another seed, before it counts as not noticed: one time may miss it by chance.
TRIES = 3


@pytest.mark.parametrize("name", MUTANTS)
def test_it_bites(tmp_path: Path, name: str) -> None:
    tree = copy_of_the_tree(tmp_path / "tree", MUTANTS[name])
    assert any(_is_noticed(tmp_path / str(number), tree, name) for number in range(TRIES)), (
        f"the mutant {name!r} was not noticed"
    )


def _is_noticed(folder: Path, tree: Path, name: str) -> bool:
    folder.mkdir()
    with scene(folder, OPEN_TO[name]["count"], _seed()) as here:
        return bool(torture(here, Worker(folder, here.variables(), tree), harm_s=60, calm_s=45, **OPEN_TO[name]))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.1)
