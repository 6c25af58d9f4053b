"""A real Chromium before the real program `admin`. Without a Chromium on this machine these tests are skipped and say so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.admin.program import Admin, running
from tests.browser import scene
from tests.patience import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]

Opener = Callable[..., Page]


@dataclass
class Watched:
    """A window onto the page; `complaints` is what the browser had to say, and requests to other hosts."""

    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)

    def tab(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.goto(self.url + path)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.complaints.append(f"asked {request.url}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = next((found for name in NAMES if (found := shutil.which(name))), playwright.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip(f"no browser here: none of {', '.join(NAMES)} on the PATH, and Playwright's own is not installed")
        expect.set_options(timeout=PATIENCE_S * 1000)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with running(tmp_path_factory.mktemp("data")) as started:
        scene.fill(started)
        yield started


@pytest.fixture(scope="module")
def cookies(admin: Admin) -> list[Any]:
    """Of one log-in that all tests of a module share: log-ins are counted."""
    jar = admin.log_in().cookies
    return [{"name": cookie.name, "value": str(cookie.value), "url": admin.url} for cookie in jar]


@pytest.fixture
def window(chromium: Browser, admin: Admin, cookies: list[Any]) -> Iterator[Callable[..., Watched]]:
    """Opens windows, logged in unless `stranger`; at the end no page of them may have complained."""
    scene.say_well(admin)
    opened = []

    def open_(stranger: bool = False, url: str = admin.url, **options: Any) -> Watched:
        context = chromium.new_context(**options)
        opened.append(Watched(context, url))
        if not stranger:
            context.add_cookies(cookies)
        return opened[-1]

    yield open_
    for watched in opened:
        watched.context.close()
    assert [complaint for watched in opened for complaint in watched.complaints] == []
