"""What is drawn and shown while it happens: charts, the newest frame; and what the operator has begun stays."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from jobqueue import spool
from jobqueue.samples import Writing, samples_file
from media import glimpse
from tests.admin.program import Admin, arrival
from tests.browser.conftest import Watched
from tests.fakes.past import CARD

Window = Callable[..., Watched]

HIDE = """() => {
  Object.defineProperty(document, "hidden", {value: true, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
SHOW = HIDE.replace("true, configurable", "false, configurable")


def looks_again(page: Page) -> None:
    with page.expect_response(lambda answer: "/static/" not in answer.url):
        pass


def read_now(admin: Admin, **readings: float) -> None:
    """What the poller would keep of this second."""
    writing = Writing(samples_file(admin.data_dir))
    writing.add([{**CARD, **readings}])
    writing.close()


def test_the_charts_are_drawn_and_go_on(admin: Admin, window: Window) -> None:
    page = window().tab("/gpu")
    expect(page.locator(".charts canvas")).to_have_count(5)
    canvas = page.locator(".charts canvas").first.element_handle()
    read_now(admin, temperature_c=87, power_w=301)
    expect(page.locator(".charts")).to_contain_text("core87")
    expect(page.locator(".charts")).to_contain_text("draw301")
    expect(page.locator(".charts")).to_contain_text("slow-down limit93")
    looks_again(page)
    assert canvas.is_visible()  # the same one, not drawn anew
    expect(page.get_by_role("row", name=re.compile("^temperature"))).to_contain_text("87")


def test_after_the_clock_jumped_the_charts_begin_anew(admin: Admin, window: Window) -> None:
    page = window().tab("/gpu?range=6+h")
    expect(page.locator(".charts canvas")).to_have_count(5)
    with page.expect_response(lambda answer: "after=0" in answer.url):
        writing = Writing(samples_file(admin.data_dir))
        writing._database.write(lambda connection: connection.execute("update clock set moved = moved + 1").fetchall())
        writing.close()
    expect(page.locator(".charts canvas")).to_have_count(5)


def test_without_scripts_the_gpu_is_told_in_tables(window: Window) -> None:
    page = window(java_script_enabled=False).tab("/gpu")
    expect(page.get_by_role("row", name="GPU busy").first).to_contain_text("92")
    page.get_by_text("The last 20 minutes as a table").click()
    expect(page.get_by_role("columnheader", name="minute")).to_be_visible()
    page.get_by_role("link", name="24 h").click()
    expect(page.get_by_role("columnheader", name="last 24 h")).to_be_visible()


@pytest.mark.slow
def test_a_hidden_tab_asks_nothing_and_then_at_once(admin: Admin, window: Window) -> None:
    watched = window()
    hidden, seen = watched.tab("/gpu"), watched.tab("/")
    expect(hidden.locator(".charts canvas")).to_have_count(5)
    hidden.evaluate(HIDE)
    asked: list[str] = []
    hidden.on("request", lambda request: asked.append(request.url))
    for _ in range(3):
        looks_again(seen)
    assert asked == []
    hidden.evaluate(SHOW)
    looks_again(seen)
    looks_again(seen)
    assert len(asked) >= 2


def test_the_newest_frame_of_a_running_job_is_shown_and_follows(admin: Admin, window: Window) -> None:
    job = admin.queue.get("running-1")
    assert job
    folder = spool.folder(admin.data_dir, job.id)
    folder.mkdir(parents=True, exist_ok=True)
    assert job.owner
    video = spool.attempt_file(admin.data_dir, job.id, job.owner)
    glimpse.keep(np.full((90, 160, 3), 200, np.uint8), video)
    watched = window()
    page, overview = watched.tab("/jobs/running-1"), watched.tab("/")
    frame = page.get_by_alt_text("newest frame")
    expect(frame).to_be_visible()
    expect(overview.get_by_alt_text("newest frame of running-1")).to_be_visible()
    page.wait_for_function("() => document.querySelector('img[alt=\"newest frame\"]').naturalWidth === 160")
    before = frame.get_attribute("src")
    glimpse.keep(np.full((80, 120, 3), 100, np.uint8), video)
    page.wait_for_function("() => document.querySelector('img[alt=\"newest frame\"]').naturalWidth === 120")
    assert frame.get_attribute("src") != before


def test_chosen_jobs_stay_chosen_while_the_list_changes(admin: Admin, window: Window) -> None:
    page = window().tab("/jobs")
    box = page.get_by_role("checkbox", name="select failed-1")
    box.check()
    admin.queue.add(arrival("pushes-down"))
    expect(page.get_by_role("link", name="pushes-down")).to_be_visible()
    looks_again(page)
    expect(box).to_be_checked()
    expect(page.get_by_role("checkbox", name="select pushes-down")).not_to_be_checked()
    assert admin.queue.cancel("pushes-down", "the test is over")


def test_the_list_is_filtered_by_hand(window: Window) -> None:
    page = window().tab("/jobs")
    page.get_by_label("Kind").select_option("musetalk")
    page.get_by_label("Sort").select_option("slowest")
    page.get_by_role("button", name="Search").click()
    assert "sort=slowest" in page.url
    expect(page.get_by_label("Sort")).to_have_value("slowest")
    page.get_by_role("navigation", name="States").get_by_role("link", name="failed").click()
    expect(page.locator("td.id")).to_have_text(["failed-1"])
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = download.value.path().read_text().splitlines()
    assert len(rows) == 2
    assert rows[1].startswith("failed-1,failed,musetalk,")


def test_a_file_that_goes_while_it_plays_leaves_the_page_well(admin: Admin, window: Window) -> None:
    watched = window()
    page = watched.tab("/jobs/heavy-5")
    page.evaluate("async () => { const it = document.getElementById('output'); it.muted = true; await it.play(); }")
    file = spool.output_file(admin.data_dir, "heavy-5")
    aside = file.with_name("aside")
    file.rename(aside)
    try:
        with page.expect_response(lambda answer: answer.status == 404):
            page.evaluate("() => { document.getElementById('output').currentTime = 20; }")
        page.reload()
        expect(page.get_by_text("The file was deleted from this machine.")).to_be_visible()
    finally:
        aside.rename(file)
    watched.complaints = [complaint for complaint in watched.complaints if "404" not in complaint]
