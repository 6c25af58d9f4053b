"""How the pages look, and that a keyboard does for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.admin.program import Admin
from tests.browser import scene
from tests.browser.conftest import Watched
from tests.browser.look import SIZES, TOO_FAINT, check, unnamed, unreached

Window = Callable[..., Watched]

PAGES = [
    "/",
    "/jobs",
    "/jobs?state=done&q=nothing",
    "/jobs/done-1",
    "/jobs/failed-1",
    "/jobs/running-1",
    f"/jobs/{scene.LONG_ID}",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_in_light_and_dark_nothing_is_cut_off_faint_or_nameless(admin: Admin, window: Window, scheme: str, size: str) -> None:
    watched = window(color_scheme=scheme, viewport=SIZES[size])
    admin.control.put_up("draining", "a new image " + "y" * 200, "cli:root")
    try:
        page = watched.tab()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(ground) < 200) == (scheme == "dark")
        for path in PAGES:
            page.goto(admin.url + path)
            for opened in page.locator("details:not(.ask)").all():
                opened.evaluate("(details) => { details.open = true; }")
            check(page, path)
    finally:
        admin.control.take_down("draining")
    page.reload()
    page.get_by_text("Pause…").click()
    check(page, "the question before a pause")
    check(window(stranger=True, color_scheme=scheme, viewport=SIZES[size]).tab("/login"), "/login")


def test_the_checks_of_the_look_bite(window: Window) -> None:
    page = window().tab("/jobs/failed-1")
    page.evaluate("""() => {
      const [words, nameless, wide] = ["p", "button", "div"].map((name) => document.createElement(name));
      words.textContent = "hardly there"; words.style.color = "#bbb"; wide.style.width = "3000px"; wide.style.height = "1px";
      document.querySelector(".card").append(words, nameless, wide);
    }""")
    assert [text.split(":")[0] for text in page.evaluate(TOO_FAINT)] == ["hardly there"]
    assert len(unnamed(page)) == 1
    assert page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/done-1", "/jobs/failed-1", "/jobs/running-1"])
def test_the_keyboard_reaches_every_control(window: Window, path: str) -> None:
    assert unreached(window().tab(path)) == []
