"""axe-core finds nothing wrong with any page: WCAG 2.0 to 2.2, A and AA, and its best practices."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.admin.program import Admin
from tests.browser.conftest import Watched

Window = Callable[..., Watched]

VENDOR = Path(__file__).parent / "vendor"
AXE = (VENDOR / "axe-core-4.14.1" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOK = """async (tags) => (await axe.run(document, {runOnly: tags})).violations.map(
  (found) => `${found.id}: ${found.help}: ${found.nodes.slice(0, 3).map((node) => node.html.slice(0, 120)).join(" | ")}`)"""

#: Every page of the panel, and what else they can look like.
PAGES = [
    "/", "/jobs", "/jobs?state=failed&q=nothing&kind=fastwan&when=24h", "/jobs?sort=slowest", "/jobs/done-1", "/jobs/failed-1",
    "/jobs/running-1", "/gpu", "/gpu?range=24+h", "/processes", "/settings", "/audit",
    "/audit?q=nothing", "/bundle", "/doctor", "/submit", "/nothing",
]  # fmt: skip


def violations(page: Page) -> list[Any]:
    """What axe has against the page as it is now. Evaluated, not added: the page's own rules forbid a script of others."""
    page.wait_for_load_state()  # with its styles: a click returns before the next page has them
    page.evaluate(AXE)
    found: list[Any] = page.evaluate(LOOK, RULES)
    return found


@pytest.mark.parametrize(
    ("scheme", "width"),
    [pytest.param("light", 1280, marks=pytest.mark.slow), pytest.param("dark", 1280, marks=pytest.mark.slow), ("light", 390)],
)
def test_axe_finds_nothing_on_any_page(admin: Admin, window: Window, scheme: str, width: int) -> None:
    watched = window(color_scheme=scheme, viewport={"width": width, "height": 844})
    page = watched.tab()
    found = {}
    for path in PAGES:
        page.goto(admin.url + path)
        if path.startswith("/gpu"):
            page.locator(".charts canvas").first.wait_for()
        for opened in page.locator("details:not(.ask)").all():
            opened.evaluate("(details) => { details.open = true; }")
        if bad := violations(page):
            found[path] = bad
    found |= {asked: bad for asked in ask_about_many(page, admin) if (bad := violations(page))}
    watched.complaints = [complaint for complaint in watched.complaints if "404" not in complaint]
    assert found == {}
    assert violations(window(stranger=True, color_scheme=scheme).tab("/login")) == []


def ask_about_many(page: Page, admin: Admin) -> Iterator[str]:
    """The questions before many jobs are touched, one after the other."""
    for word in ("Cancel…", "Retry…"):
        page.goto(f"{admin.url}/jobs")
        page.get_by_label("all matching jobs").check()
        page.locator("#many").get_by_role("button", name=word).click()
        page.get_by_role("heading", name=re.compile(rf"^{word[:-1]} \d+ jobs?\?$")).wait_for()
        yield f"the question before many: {word}"


def test_axe_would_find_something(window: Window) -> None:
    page = window().tab("/jobs/failed-1")
    page.evaluate("""() => {
      const [picture, button] = ["img", "button"].map((name) => document.createElement(name));
      document.getElementById("live").append(picture, button);
    }""")
    assert {text.split(":")[0] for text in violations(page)} == {"image-alt", "button-name"}


def test_axe_is_as_it_was_published() -> None:
    noted = re.findall(r"^([0-9a-f]{64})  (\S+)$", (VENDOR / "VENDOR.txt").read_text(), re.MULTILINE)
    assert len(noted) == 2
    for digest, name in noted:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
