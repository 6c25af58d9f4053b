"""What can be measured of how the pages look: nothing cut off, everything readable, everything reachable and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.admin.program import Admin
from tests.browser import scene
from tests.browser.conftest import Watched

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
SIZES = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1280, "height": 800}}

#: Gives the texts that can hardly be read.
TOO_FAINT = (Path(__file__).parent / "contrast.js").read_text()

#: What a keyboard must reach, and where it is now: each control has a number.
CONTROLS = "a[href], button, input:not([type=hidden]), summary, video, audio, [tabindex='0']"
NUMBERED = """(which) => [...document.querySelectorAll(which)].filter((one) => one.checkVisibility()).map((element, at) => {
  element.dataset.at = at;
  return element.outerHTML.slice(0, 80);
})"""
HERE = "() => document.activeElement?.dataset.at ?? null"


def unnamed(page: Page) -> list[str]:
    """Controls and pictures for which a screen reader has no words."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [describe(node) for node in tree if is_control(node) and not node.get("name", {}).get("value", "").strip()]


def is_control(node: dict[str, Any]) -> bool:
    role = node.get("role", {}).get("value")
    focusable = any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))
    named_elsewhere = ("RootWebArea", "generic", "main")
    pictures = ("image", "progressbar", "meter", "Video", "Audio")
    return not node.get("ignored") and ((focusable and role not in named_elsewhere) or role in pictures)


def describe(node: dict[str, Any]) -> str:
    return f"{node['role']['value']} {node.get('description', {}).get('value', '')}"


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


def check(page: Page, path: str) -> None:
    width = page.viewport_size["width"] if page.viewport_size else 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls sideways"
    assert page.evaluate(TOO_FAINT) == [], path
    assert unnamed(page) == [], path


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
    page = window().tab(path)
    page.evaluate("document.getElementById('live').id = 'still'")  # numbers are not morphed away
    controls, reached = page.evaluate(NUMBERED, CONTROLS), set()
    for _ in range(3 * len(controls) + 20):  # a player has controls of its own
        page.keyboard.press("Tab")
        if (at := page.evaluate(HERE)) is not None:
            reached.add(int(at))
        if len(reached) == len(controls):
            break
    assert [control for at, control in enumerate(controls) if at not in reached] == []
