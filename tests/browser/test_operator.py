"""What an operator does, by hand, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from admin import files
from operations import Operator
from tests.admin.program import PASSWORD, Admin, arrival, running
from tests.browser import scene
from tests.browser.conftest import Watched

Window = Callable[..., Watched]

PLAY = """async (from) => {
  const player = document.getElementById("output");
  player.muted = true;
  player.currentTime = from;
  await player.play();
}"""


def mode(page: Page, word: str) -> None:
    """The page says this mode, and has arrived whole: with the script that hears keys and notices a server that is gone."""
    expect(page.locator("#mode")).to_have_text(word)
    page.wait_for_load_state()


def looks_again(page: Page) -> None:
    """Wait until the page has fetched itself once more."""
    with page.expect_response(lambda answer: answer.url.split("#")[0] == page.url.split("#")[0]):
        pass


def plays(page: Page, from_s: float) -> None:
    """The finished video runs on from there."""
    page.evaluate(PLAY, from_s)
    page.wait_for_function("(after) => document.getElementById('output').currentTime > after", arg=from_s + 0.2)


def test_a_one_time_link_logs_in_once(admin: Admin, window: Window) -> None:
    link = Operator(actor="test", queue=admin.queue, control=admin.control, outbox=admin.outbox).login_link(admin.url)
    path = link.removeprefix(admin.url)
    page = window(stranger=True).tab(path)
    page.wait_for_url(admin.url + "/")
    mode(page, "active")
    assert path.split("=")[1] not in page.content()
    late = window(stranger=True)
    page = late.tab(path)
    expect(page.get_by_role("alert")).to_contain_text("the code was used")
    late.complaints = [complaint for complaint in late.complaints if "403" not in complaint]


def test_finished_videos_play_also_the_sixth_and_from_the_middle(window: Window) -> None:
    assert len(scene.heavy_video()) > 20 * files.PIECE
    watched = window()
    pages = [watched.tab(f"/jobs/{job_id}") for job_id in scene.HEAVY]
    for page in pages:
        plays(page, 0)
    plays(pages[0], 22.4)
    expect(pages[0].get_by_role("link", name="Download")).to_be_visible()


def test_pause_and_resume_from_the_keyboard(admin: Admin, window: Window) -> None:
    page = window().tab()
    page.keyboard.press("p")
    expect(page.get_by_label("Why?")).to_be_focused()
    page.keyboard.press("Enter")
    mode(page, "active")
    page.keyboard.type("pop/job r")
    looks_again(page)
    expect(page.get_by_label("Why?")).to_be_focused()
    expect(page.get_by_label("Why?")).to_have_value("pop/job r")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Why?")).to_be_hidden()
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    mode(page, "paused")
    expect(page.get_by_text("pop/job r")).to_be_visible()
    flag = admin.control.flag("paused")
    assert flag
    assert flag["reason"] == "pop/job r"
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    mode(page, "active")
    assert admin.control.flag("paused") is None


def test_keys_lead_to_pages_and_to_the_search(window: Window) -> None:
    page = window().tab()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("failed-1")
    page.keyboard.press("Enter")
    expect(page.locator("td.id")).to_have_text(["failed-1"])
    page.locator("h1").click()
    for key, heading in (("o", "Last jobs"), ("j", "Jobs")):
        page.wait_for_load_state()
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()


def test_cancel_and_retry(admin: Admin, window: Window) -> None:
    admin.queue.add(arrival("change-of-mind"))
    page = window().tab("/jobs")
    page.get_by_role("link", name="change-of-mind").click()
    page.get_by_text("Cancel…").click()
    page.get_by_label("Why?").last.fill("not needed")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_text("Cancelled: not needed")).to_be_visible()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("round 2")).to_be_visible()
    expect(page.get_by_text("Cancel…")).to_be_visible()
    assert admin.queue.cancel("change-of-mind", "the test is over")


def test_input_and_output_play_together(window: Window) -> None:
    page = window().tab("/jobs/done-1")
    page.evaluate("() => { document.getElementById('output').muted = true; }")
    page.get_by_role("button", name="Play both together").click()
    moving = "() => ['in-video', 'output'].every((id) => document.getElementById(id).currentTime > 0.2)"
    page.wait_for_function(moving)
    page.evaluate("() => { const it = document.getElementById('output'); it.pause(); it.currentTime = 1; }")
    page.wait_for_function("() => Math.abs(document.getElementById('in-video').currentTime - 1) < 0.2")
    page.wait_for_function("() => document.getElementById('in-video').paused")


def test_a_jobs_command_is_copied(window: Window) -> None:
    watched = window()
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.tab("/jobs/failed-1")
    page.get_by_text("The same job as a command").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("() => navigator.clipboard.readText()").startswith("curl http://127.0.0.1:8000/generate")


def test_a_finished_job_has_its_picture_in_the_list(window: Window) -> None:
    page = window().tab("/jobs?q=done-1")
    picture = page.locator("tr", has_text="done-1").locator("img")
    expect(picture).to_be_visible()
    page.wait_for_function("() => document.querySelector('img.thumb').naturalWidth === 128")


def test_the_page_stays_fresh_and_leaves_alone_what_is_open(admin: Admin, window: Window) -> None:
    watched = window()
    list_, job, player = watched.tab("/jobs"), watched.tab("/jobs/failed-1"), watched.tab("/jobs/done-1")
    for page in (list_, job, player):
        page.evaluate("window.loadedOnce = true")
    list_.get_by_label("Search").fill("half a wo")
    job.get_by_text("stack trace", exact=True).click()
    player.evaluate("() => { const it = document.getElementById('output'); it.muted = it.loop = true; return it.play(); }")
    player.get_by_text("input video").click()
    admin.queue.add(arrival("newcomer"))
    expect(list_.get_by_role("link", name="newcomer")).to_be_visible()
    expect(list_.get_by_label("Search")).to_have_value("half a wo")
    expect(list_.get_by_label("Search")).to_be_focused()
    expect(list_.locator("time").first).to_contain_text("ago")
    looks_again(job)
    expect(job.get_by_label("stack trace")).to_be_visible()
    looks_again(player)
    expect(player.get_by_label("input video")).to_be_visible()
    assert not player.evaluate("document.getElementById('output').paused")
    assert admin.queue.retry("failed-1")
    expect(job.get_by_text("round 2")).to_be_visible()
    assert admin.queue.cancel("newcomer", "the test is over")
    assert admin.queue.cancel("failed-1", "the test is over")
    assert all(page.evaluate("window.loadedOnce") for page in (list_, job, player))


def test_a_log_out_in_one_tab_is_seen_in_the_other(admin: Admin, window: Window) -> None:
    watched = window(stranger=True)
    first = watched.tab("/jobs?state=failed")
    assert first.url.startswith(f"{admin.url}/login?next=")
    first.get_by_label("Password").fill(PASSWORD)
    first.keyboard.press("Enter")
    first.wait_for_url(f"{admin.url}/jobs?state=failed")
    watched.tab().get_by_role("button", name="Log out").click()
    first.wait_for_url(f"{admin.url}/login?next=*")


def test_a_page_whose_server_is_gone_says_that_it_is_old(window: Window, tmp_path: Path) -> None:
    with running(tmp_path) as own:
        watched = window(stranger=True, url=own.url)
        page = watched.tab()
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        mode(page, "stopped")
        expect(page.get_by_text("does not respond; the data shown is out of date")).to_be_hidden()
        own.process.kill()
        expect(page.get_by_text("does not respond; the data shown is out of date")).to_be_visible()
        watched.complaints.clear()


def test_everything_works_without_scripts(admin: Admin, window: Window) -> None:
    watched = window(stranger=True, java_script_enabled=False)
    page = watched.tab()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    mode(page, "active")
    page.get_by_text("Pause…").click()
    page.get_by_label("Why?").fill("no scripts here")
    page.get_by_role("button", name="Pause the worker").click()
    mode(page, "paused")
    page.get_by_role("button", name="Resume").click()
    mode(page, "active")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill("done-1")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="done-1").click()
    expect(page.get_by_label("finished video")).to_be_visible()
    expect(page.locator("time").first).to_contain_text("UTC")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
