"""The pages where a worker is operated, by hand, in a browser: programs and logs, new jobs, many jobs, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.admin import world
from tests.admin.program import Admin, arrival, running
from tests.browser.conftest import Watched
from tests.browser.look import SIZES, check, unreached
from tests.guard.supervised import Supervised
from tests.patience import until

Window = Callable[..., Watched]

PATHS = ("/processes", "/settings", "/audit", "/bundle", "/doctor", "/submit", "/jobs")


@pytest.fixture(scope="module")
def supervisord(admin: Admin) -> Iterator[Supervised]:
    for number in range(40):
        world.say(admin.data_dir, f"generated frame {number} of 750", job="running-1")
    world.say(admin.data_dir, "a batch was too large " + "x" * 300, level="warning")
    world.say(admin.data_dir, "no memory is left", level="error")
    with world.supervisord(admin.data_dir) as started:
        yield started


def pick(page: Page, *job_ids: str) -> None:
    for job_id in job_ids:
        page.get_by_role("checkbox", name=f"select {job_id}", exact=True).check()


# ---- programs and logs ------------------------------------------------------------------------------------------------------


def test_a_program_is_restarted_after_its_job_by_keyboard_alone(admin: Admin, window: Window, supervisord: Supervised) -> None:
    page, pid = window().tab(), supervisord.running_pid("inference")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", name="Processes")).to_be_visible()
    page.wait_for_load_state()  # with its script, which puts the cursor into an opened question
    row = page.get_by_role("row").filter(has_text="inference")
    expect(row).to_contain_text("working on running-1")
    row.get_by_text("Restart…").focus()
    page.keyboard.press("Enter")
    expect(row.get_by_label("Why?")).to_be_focused()
    page.keyboard.type("it leaks")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("will restart after its job: it leaks")
    assert supervisord.running_pid("inference") == pid
    admin.control.end_restart("inference")
    expect(row).to_contain_text("working on running-1")  # without a reload


def test_a_program_is_restarted_now(window: Window, supervisord: Supervised) -> None:
    page, pid = window().tab("/processes"), supervisord.running_pid("uploader")
    row = page.get_by_role("row").filter(has_text="uploader")
    expect(row).to_contain_text(f"pid {pid}")
    row.get_by_text("Restart…").click()
    row.get_by_label("Why?").fill("it leaks")
    row.get_by_role("button", name="Restart uploader").click()
    expect(row).not_to_contain_text(f"pid {pid}")
    expect(row).to_contain_text("running")


@pytest.mark.usefixtures("supervisord")
def test_a_log_is_followed_filtered_and_let_go(admin: Admin, window: Window) -> None:
    page = window().tab("/processes?log=inference")
    log = page.get_by_role("log")
    expect(log).to_contain_text("no memory is left")
    world.say(admin.data_dir, "a <b>new</b> line")
    expect(log).to_contain_text("a <b>new</b> line")
    assert log.evaluate("(it) => it.scrollTop + it.clientHeight >= it.scrollHeight - 2")
    page.get_by_label("Level").select_option("errors")
    expect(log).not_to_contain_text("generated")
    world.say(admin.data_dir, "half a batch", level="info")
    world.say(admin.data_dir, "still no memory", level="error")
    expect(log).to_contain_text("still no memory")
    expect(log).not_to_contain_text("half a batch")
    page.get_by_label("follow").uncheck()
    with page.expect_response(lambda answer: "/processes?" in answer.url):  # the page itself goes on
        world.say(admin.data_dir, "unheard", level="error")
    expect(log).not_to_contain_text("unheard")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "unheard" in Path(download.value.path()).read_text()


# ---- pauses -----------------------------------------------------------------------------------------------------------------


def test_a_pause_for_a_time_counts_down_and_says_what_goes_on(admin: Admin, window: Window) -> None:
    page = window(viewport=SIZES["phone"]).tab("/jobs")
    page.get_by_text("Pause…").click()
    page.get_by_label("Why?").fill("lunch")
    page.get_by_label("For how many minutes?").fill("30")
    page.get_by_role("button", name="Pause the worker").click()
    standing = page.locator("#standing")
    expect(standing).to_contain_text("lunch. The pause ends in 30 min. Running jobs finish")
    expect(standing).to_contain_text("In progress: 1 running")
    assert page.url.endswith("/jobs")
    page.get_by_text("Drain…").click()
    page.get_by_label("Why?").fill("new image")
    page.get_by_role("button", name="Drain and exit").click()
    expect(page.locator("#mode")).to_have_text("draining")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#mode")).to_have_text("active")
    expect(standing).to_have_text("")
    assert admin.control.flags() == {}


# ---- jobs -------------------------------------------------------------------------------------------------------------------


def test_chosen_jobs_stay_chosen_and_are_counted_before_they_end(admin: Admin, window: Window) -> None:
    for name in ("many-1", "many-2", "many-3"):
        admin.queue.add(arrival(name))
    page = window().tab("/jobs?state=open&q=many-")
    pick(page, "many-1", "many-3")
    admin.queue.add(arrival("many-4"))
    expect(page.get_by_role("link", name="many-4")).to_be_visible()
    for name, chosen in (("many-1", True), ("many-2", False), ("many-3", True), ("many-4", False)):
        assert page.get_by_role("checkbox", name=f"select {name}", exact=True).is_checked() == chosen
    page.get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("heading", name="Cancel 2 jobs?")).to_be_visible()
    page.get_by_role("button", name="Cancel 2 jobs").click()  # without a reason nothing is sent
    page.get_by_label("Why?").last.fill("sent by mistake")
    page.get_by_role("button", name="Cancel 2 jobs").click()
    expect(page.get_by_text("2 of 2 jobs were cancelled")).to_be_visible()
    page.goto(f"{admin.url}/jobs?state=cancelled&q=many-")
    page.get_by_label("all matching jobs").check()
    page.get_by_role("button", name="Retry…").click()
    page.get_by_role("button", name="Retry 2 jobs").click()
    expect(page.get_by_text("2 of 2 jobs were queued for a retry")).to_be_visible()
    assert {job.round for job in admin.queue.newest(text="many-")} == {1, 2}
    for name in ("many-1", "many-2", "many-3", "many-4"):
        admin.queue.cancel(name, "the test is over")


def test_a_job_is_handed_in_from_a_file_and_a_link(admin: Admin, window: Window, tmp_path: Path) -> None:
    (tmp_path / "face.mp4").write_bytes(b"video" * 100_000)
    watched = window()
    page = watched.tab("/jobs")
    page.get_by_role("link", name="New job…").click()
    page.get_by_label("or a link").nth(1).fill("https://media.example/voice.wav")
    page.get_by_text("Parameters of the engine").click()
    page.get_by_label("Version").select_option("1.0")
    page.get_by_label("Resolution").fill("large")
    page.get_by_label("A file").first.set_input_files(tmp_path / "face.mp4")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.get_by_role("alert")).to_contain_text("resolution: must look like 512x512")
    expect(page.get_by_label("or a link").nth(1)).to_have_value("https://media.example/voice.wav")
    page.get_by_label("Resolution").fill("256x256")
    page.get_by_label("A file").first.set_input_files(tmp_path / "face.mp4")
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(f"{admin.url}/jobs/local-*")
    job = admin.queue.get(page.url.rsplit("/", 1)[1])
    assert job
    assert (job.inputs["resolution"], job.params) == ("256x256", {"version": "1.0"})
    assert admin.queue.cancel(job.id, "the test is over")
    watched.complaints = [complaint for complaint in watched.complaints if "400" not in complaint]


def test_the_sample_job_is_one_click_away(admin: Admin, window: Window) -> None:
    page = window().tab("/")
    page.keyboard.press("n")
    page.get_by_role("button", name="Run the sample job").click()
    page.wait_for_url(f"{admin.url}/jobs/sample-*")
    assert admin.queue.cancel(page.url.rsplit("/", 1)[1], "the test is over")


# ---- settings ---------------------------------------------------------------------------------------------------------------


def test_settings_lead_to_the_trail_and_the_bundle(admin: Admin, window: Window) -> None:
    admin.control.note("cli:root", "pause", None, "a very special reason", "done")
    page = window().tab()
    page.keyboard.press("s")
    expect(page.get_by_role("heading", name="Changed from the default")).to_be_visible()
    page.get_by_text("All 5").click()
    expect(page.get_by_text("Seconds between claims while the worker has capacity.")).to_be_visible()
    page.get_by_role("link", name="Audit trail").click()
    page.get_by_label("Search").fill("very special")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert "a very special reason" in Path(download.value.path()).read_text()
    page.goto(f"{admin.url}/bundle")
    page.get_by_text("settings.json").click()
    expect(page.get_by_label("settings.json")).to_contain_text("POLL_INTERVAL_SEC")
    with page.expect_download() as bundle:
        page.get_by_role("link", name="Download").click()
    assert bundle.value.suggested_filename.endswith(".zip")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_what_doctor_says_is_one_click_away(window: Window, scripts: bool) -> None:
    page = window(java_script_enabled=scripts, viewport=SIZES["phone"]).tab("/settings")
    page.get_by_role("link", name="Doctor").click()
    row = page.get_by_role("row").filter(has_text="intact; its log")
    expect(row.locator(".badge")).to_have_text("ok")
    page.get_by_role("link", name="Check again").click()
    expect(row).to_be_visible()


def test_a_one_time_link_and_signing_out_everywhere(window: Window, tmp_path: Path) -> None:
    with running(tmp_path) as own:
        watched = window(stranger=True, url=own.url)
        page = watched.tab("/login")
        page.get_by_label("Password").fill("a long password")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{own.url}/")
        page.goto(f"{own.url}/settings")
        page.get_by_role("button", name="New one-time link").click()
        link = page.locator("#link").inner_text()
        phone = window(stranger=True, url=own.url).tab(link.removeprefix(own.url))
        phone.wait_for_url(f"{own.url}/")
        page.goto(f"{own.url}/settings")
        page.get_by_text("Sign out everywhere…").click()
        page.get_by_role("button", name="End all 2 sessions").click()
        page.wait_for_url(f"{own.url}/login")
        phone.wait_for_url(f"{own.url}/login*")  # it notices by itself


def test_who_may_only_look_sees_no_button(window: Window, tmp_path: Path) -> None:
    with running(tmp_path, ADMIN_VIEW_PASSWORD="only for looking") as own:
        own.queue.add(arrival("waiting-1"))
        page = window(stranger=True, url=own.url).tab("/login")
        page.get_by_label("Password").fill("only for looking")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{own.url}/")
        for path in ("/", "/jobs", "/jobs/waiting-1", "/settings", "/submit"):
            page.goto(own.url + path)
            buttons = [button.inner_text() for button in page.locator("form[method=post] button").all()]
            assert buttons == ["Log out"], path
        page.keyboard.press("p")  # and the key does nothing


# ---- look -------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("supervisord")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_in_light_and_dark_nothing_is_cut_off_faint_or_nameless(admin: Admin, window: Window, scheme: str, size: str) -> None:
    page = window(color_scheme=scheme, viewport=SIZES[size]).tab()
    admin.control.note("cli:root", "cancel", "z" * 300, "<b>" + "y" * 200, "done")
    for path in PATHS:
        page.goto(admin.url + path)
        for opened in page.locator("details:not(.ask)").all():
            opened.evaluate("(details) => { details.open = true; }")
        check(page, path)
    page.goto(f"{admin.url}/processes")
    page.get_by_text("Restart…").first.click()
    check(page, "the question before a restart")
    page.goto(f"{admin.url}/jobs")
    page.get_by_label("all matching jobs").check()
    page.get_by_role("button", name="Cancel…").last.click()
    expect(page.get_by_role("heading", name="Cancel")).to_be_visible()
    check(page, "the question before many are cancelled")


@pytest.mark.usefixtures("supervisord")
@pytest.mark.parametrize("path", PATHS)
def test_the_keyboard_reaches_every_control(window: Window, path: str) -> None:
    assert unreached(window().tab(path)) == []


def test_everything_can_be_done_without_scripts(window: Window, tmp_path: Path) -> None:
    with running(tmp_path) as own, world.supervisord(tmp_path, {"inference": "steady.py"}) as programs:
        for name in ("one", "two"):
            own.queue.add(arrival(name))
        world.say(tmp_path, "a line of the log")
        page = window(stranger=True, url=own.url, java_script_enabled=False).tab("/login")
        page.get_by_label("Password").fill("a long password")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Jobs", exact=True).click()
        pick(page, "one", "two")
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_label("Why?").last.fill("mistake")
        page.get_by_role("button", name="Cancel 2 jobs").click()
        assert own.queue.counts() == {"cancelled": 2}
        page.get_by_role("link", name="Processes").click()
        expect(page.get_by_role("log")).to_contain_text("a line of the log")
        pid = programs.running_pid("inference")
        page.get_by_text("Restart…").click()
        page.get_by_label("Why?").last.fill("it leaks")
        page.get_by_role("button", name="Restart inference").click()
        until(lambda: (found := programs.program("inference")) and found.pid != pid)
        page.goto(f"{own.url}/submit")
        page.get_by_label("or a link").first.fill("https://media.example/face.mp4")
        page.get_by_label("or a link").nth(1).fill("https://media.example/voice.wav")
        page.get_by_role("button", name="Submit the job").click()
        expect(page.get_by_role("heading", name="local-")).to_be_visible()
