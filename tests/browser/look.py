"""What can be measured of how a page looks and is used: nothing cut off, everything readable, reachable and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

SIZES = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1280, "height": 800}}

#: Gives the texts that can hardly be read.
TOO_FAINT = (Path(__file__).parent / "contrast.js").read_text()

#: What a keyboard must reach, and where it is now: each control has a number.
CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, video, audio, [tabindex='0']"
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


def check(page: Page, path: str) -> None:
    page.wait_for_load_state()  # with its styles: a click returns before the next page has them
    width = page.viewport_size["width"] if page.viewport_size else 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls sideways"
    assert page.evaluate(TOO_FAINT) == [], path
    assert unnamed(page) == [], path


def unreached(page: Page) -> list[str]:
    """Controls that the tab key does not come to."""
    page.evaluate("document.getElementById('live')?.setAttribute('id', 'still')")  # numbers are not morphed away
    controls, reached = page.evaluate(NUMBERED, CONTROLS), set()
    for _ in range(3 * len(controls) + 20):  # a player has controls of its own
        page.keyboard.press("Tab")
        if (at := page.evaluate(HERE)) is not None:
            reached.add(int(at))
        if len(reached) == len(controls):
            break
    return [control for at, control in enumerate(controls) if at not in reached]
