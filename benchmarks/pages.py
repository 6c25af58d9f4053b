"""The admin page with a history of 20,000 jobs: each page's server time, size and time to first paint.

    python -m benchmarks.pages [--jobs 20000] [--no-browser]     (after ./worker test has installed the browser's driver)

Server time is how long a client on this machine waits for a page that has to be rendered, and for one that it has cached (304).
Size and first paint are measured in a real Chromium with an empty cache, on this machine and with a simulated slow connection
and CPU (150 ms round trip, 1.6 Mbit/s, four times slower). Limits: 50 ms per page; the overview 25 kB, 5 requests, 1 s when
slow.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from jobqueue.samples import samples_file
from tests.admin.program import Admin, running
from tests.browser import scene
from tests.fakes import history, past

PATHS = (
    *(
        "/",
        "/jobs",
        "/jobs?state=failed",
        "/jobs?q=nothing+like+it",
        "/jobs?q=job-000",
        "/jobs?sort=slowest",
        "/jobs?sort=biggest",
    ),
    *("/jobs?sort=slowest&state=cancelled", "/jobs?kind=fastwan&state=cancelled&when=24h", "/jobs?after=9.0,9"),
    *("/jobs/job-010000", "/jobs/failed-1", "/jobs/running-1", "/gpu", "/gpu?range=24+h"),
    *("/gpu/history?range=24+h", "/gpu/history?range=20+min", "/processes", "/settings"),
    *("/api/v1/status", "/api/v1/jobs", "/api/v1/jobs?q=job-000", "/api/v1/jobs?q=nothing"),
)
SEEN = ("/", "/jobs", "/jobs/done-1", "/gpu")
LIMIT_MS = 50.0
ROUNDS = 15
#: The overview's limits: bytes, requests, milliseconds to the first paint when slow.
OVERVIEW = (25_000, 5, 1000.0)
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 1.6e6 / 8}
WATCH = """() => {
  const add = (list) => list.getEntries().forEach((one) => { window.shifts += one.hadRecentInput ? 0 : one.value; });
  window.shifts = 0;
  new PerformanceObserver(add).observe({type: "layout-shift", buffered: true});
}"""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--no-browser", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as admin:
        history.fill(admin.queue.database, asked.jobs)
        scene.fill(admin)
        past.fill(samples_file(admin.data_dir), [past.CARD])
        scene.say_well(admin)
        print(f"{asked.jobs:,} jobs, {(admin.data_dir / 'jobs.db').stat().st_size / 1e6:.0f} MB\n")
        server(admin)
        if not asked.no_browser:
            browser(admin)


def server(admin: Admin) -> None:
    """The server time of each page."""
    session, worst = admin.log_in(), 0.0
    print(f"{'page':46} {'rendered ms':>12} {'worst':>7} {'304 ms':>7} {'kB':>6}")
    for path in PATHS:
        made, known, size = [], [], 0
        for number in range(ROUNDS):
            admin.control.note("benchmark", "look", None, str(number), "done")  # a change, so that it is rendered
            spent, answer = timed(session, admin.url + path)
            assert answer.status_code == 200, path
            made.append(spent)
            size = len(answer.content)
            if etag := answer.headers.get("ETag"):
                known.append(timed(session, admin.url + path, etag)[0])
        worst = max(worst, statistics.median(made))
        print(
            f"{path:46} {statistics.median(made):12.1f} {max(made):7.1f} "
            f"{statistics.median(known) if known else float('nan'):7.1f} {size / 1e3:6.1f}"
        )
    print(f"\nslowest page {worst:.1f} ms, at most {LIMIT_MS:.0f} ms: {'kept' if worst <= LIMIT_MS else 'NOT KEPT'}\n")


def timed(session: requests.Session, url: str, etag: str = "") -> tuple[float, requests.Response]:
    began = time.perf_counter()
    answer = session.get(url, headers={"If-None-Match": etag} if etag else {}, timeout=60)
    return (time.perf_counter() - began) * 1000, answer


def browser(admin: Admin) -> None:
    """Size and first paint in Chromium."""
    from playwright.sync_api import sync_playwright

    jar = admin.log_in().cookies
    cookies: Any = [{"name": cookie.name, "value": str(cookie.value), "url": admin.url} for cookie in jar]
    print(f"{'page':16} {'requests':>9} {'kB':>7} {'paint ms':>9} {'slow':>7} {'shift':>7}")
    with sync_playwright() as playwright:
        program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
        chromium = playwright.chromium.launch(executable_path=program, args=["--disable-gpu", "--disable-dev-shm-usage"])
        for path in SEEN:
            visits = {slow: [seen(chromium, admin.url + path, cookies, slow) for _ in range(3)] for slow in (False, True)}
            paint, count, size, shift = sorted(visits[False])[1]
            slow = sorted(visits[True])[1][0]
            print(f"{path:16} {count:9} {size / 1e3:7.1f} {paint:9.0f} {slow:7.0f} {shift:7.3f}")
            if path == "/":
                kept = size <= OVERVIEW[0] and count <= OVERVIEW[1] and slow <= OVERVIEW[2]
                limits = f"at most {OVERVIEW[1]}, {OVERVIEW[0] / 1e3:.0f} kB, {OVERVIEW[2]:.0f} ms slow"
                print(f"{'':16} {limits}: {'kept' if kept else 'NOT KEPT'}")
        chromium.close()


def seen(chromium: Any, url: str, cookies: Any, slow: bool) -> tuple[float, int, int, float]:
    """First paint (ms), requests, bytes on the wire, layout shift of one cold visit."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies(cookies)
    page = context.new_page()
    wire = context.new_cdp_session(page)
    sizes: dict[str, int] = {}
    wire.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    wire.send("Network.enable")
    if slow:
        wire.send("Network.emulateNetworkConditions", SLOW)
        wire.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.add_init_script(f"({WATCH})()")
    page.goto(url, wait_until="load")
    count, size = len(sizes), sum(sizes.values())
    page.wait_for_function(f"() => ({PAINT})() !== null")
    paint, shift = page.evaluate(PAINT), page.evaluate("() => window.shifts")
    context.close()
    return paint, count, size, shift


if __name__ == "__main__":
    main()
