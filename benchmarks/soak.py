"""The cost of the admin page with many viewers: ten tabs of a real browser, running jobs, stalled readers.

    python -m benchmarks.soak [--minutes 5] [--tabs 10]          (after ./worker test has installed the browser's driver)

Jobs run continuously, one after the other (progress four times per second), on top of a history of 20,000; GPU samples are
written every second, as the poller does. Six readers start to fetch a video and then stop reading. Prints the fraction of a
core used by the page's programs, against the limit of 2 %; responses by status; threads and memory at the beginning and the
end.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from jobqueue import spool
from jobqueue.job import FETCH, GENERATE, UPLOAD
from jobqueue.queue import Queue
from jobqueue.samples import Writing, samples_file
from tests.admin.program import Admin, arrival, running
from tests.browser import scene
from tests.fakes import history, past

PATHS = (
    "/",
    "/jobs",
    "/gpu",
    "/jobs/{job}",
    "/",
    "/jobs?state=failed",
    "/gpu?range=24+h",
    "/jobs/done-1",
    "/",
    "/jobs?sort=slowest",
)
LIMIT = 0.02
#: The seconds that a job takes here.
JOB_S = 20.0
STALLED = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--tabs", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as admin:
        history.fill(admin.queue.database)
        past.fill(samples_file(admin.data_dir), [past.CARD])
        scene.fill(admin)
        job = admin.queue.get("running-1")
        assert job
        admin.queue.put_back(GENERATE, job, 0)
        for waiting in admin.queue.unfinished():
            admin.queue.cancel(waiting.id, "not in this scene")
        stop = threading.Event()
        work = [threading.Thread(target=loop, args=(admin, stop)) for loop in (jobs, samples, words)]
        for thread in work:
            thread.start()
        try:
            watch(admin, asked.tabs, asked.minutes * 60)
        finally:
            stop.set()
            for thread in work:
                thread.join()


def jobs(admin: Admin, stop: threading.Event) -> None:
    """One job after another, as the three programs would process them."""
    queue, number = Queue(admin.queue.database), 0
    while not stop.is_set():
        number += 1
        queue.add(arrival(f"soak-{number}"))
        fetch = queue.take(FETCH, "poller/soak")
        assert fetch
        queue.done(FETCH, fetch, {})
        job = queue.take(GENERATE, "inference/soak")
        assert job
        steps = int(JOB_S * 4)
        for step in range(steps):
            queue.progress(job, "inferring", 0.2 + 0.7 * step / steps, step, steps)
            if stop.wait(0.25):
                return
        queue.done(GENERATE, job, {})
        upload = queue.take(UPLOAD, "uploader/soak")
        assert upload
        queue.done(UPLOAD, upload, {"output_url": "https://store.example/soak.mp4"})


def samples(admin: Admin, stop: threading.Event) -> None:
    writing = Writing(samples_file(admin.data_dir))
    while not stop.wait(1.0):
        writing.add([past.CARD])


def words(admin: Admin, stop: threading.Event) -> None:
    """The programs' status reports, every five seconds."""
    scene.say_well(admin)
    while not stop.wait(5.0):
        scene.say_well(admin)


def stall(admin: Admin, cookie: Any) -> list[socket.socket]:
    """Readers that request a large video and then stop reading."""
    with spool.output_file(admin.data_dir, "heavy-0").open("r+b") as file:
        file.truncate(64 * 1024 * 1024)
    request = f"GET /jobs/heavy-0/files/output HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie.name}={cookie.value}\r\n\r\n"
    readers = []
    for _ in range(STALLED):
        readers.append(socket.create_connection(("127.0.0.1", int(admin.url.rsplit(":", 1)[1]))))
        readers[-1].sendall(request.encode())
    return readers


def watch(admin: Admin, tabs: int, seconds: float) -> None:
    """Open the tabs, wait, and print the cost."""
    from playwright.sync_api import sync_playwright

    session = admin.log_in()
    program = psutil.Process(admin.process.pid)
    family = [program, *program.children(recursive=True)]
    answers: Counter[str] = Counter()
    with sync_playwright() as playwright:
        path = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
        chromium = playwright.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-dev-shm-usage"])
        context = chromium.new_context()
        context.add_cookies([{"name": one.name, "value": str(one.value), "url": admin.url} for one in session.cookies])
        context.on("response", lambda answer: answers.update([str(answer.status)]))
        pages = []
        for number in range(tabs):
            pages.append(context.new_page())
            pages[-1].goto(admin.url + PATHS[number % len(PATHS)].format(job="soak-1"))
        readers = stall(admin, next(iter(session.cookies)))
        answers.clear()
        before, began = spent(family), time.monotonic()
        threads, memory = family[-1].num_threads(), family[-1].memory_info().rss
        while (left := began + seconds - time.monotonic()) > 0:
            pages[0].wait_for_timeout(min(left, 1.0) * 1000)
        share = (spent(family) - before) / (time.monotonic() - began)
        reached = session.get(f"{admin.url}/", timeout=60).status_code
        stale = sum(page.locator("#stale").is_visible() for page in pages)
        for reader in readers:
            reader.close()
        chromium.close()
    print(f"{tabs} tabs, {seconds:.0f} s, {sum(answers.values())} answers: {dict(answers)}; {STALLED} readers stalled")
    after = family[-1].memory_info().rss
    print(f"threads {threads} to {family[-1].num_threads()}, memory {memory / 2**20:.0f} to {after / 2**20:.0f} MiB")
    print(f"status of a page afterwards: {reached}; tabs that show as stale: {stale}")
    print(f"{share:.2%} of a core, at most {LIMIT:.0%}: {'kept' if share <= LIMIT else 'NOT KEPT'}")


def spent(family: list[psutil.Process]) -> float:
    """CPU seconds of these processes."""
    return sum(sum(process.cpu_times()[:2]) for process in family)


if __name__ == "__main__":
    main()
