"""Headless Chromium on the page of a running server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from annotate.running import Running

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
)

# Only a page that hangs waits so long; machines that do other work as well are slow.
_PATIENCE_S = 180


def chromium_path() -> str:
    """The system's Chromium; tests skip where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install .[test]")
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("there is no Chromium here: apt-get install chromium")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that draws in software."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """One tab of one expert; it keeps what the page complains of and asks for."""

    def __init__(self, browser: Any, running: Running, who: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", self._asked)
        self.page.add_init_script(f"localStorage.setItem('maskless-who', {who!r})")
        self.page.set_default_timeout(_PATIENCE_S * 1000)
        self.page.goto(running.address)
        self.page.wait_for_selector("body[data-ready]")

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and "GPU stall" not in message.text:
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.hosts.add(request.url.split("/")[2])

    def row(self, group: str) -> Any:
        """A row of the table of names."""
        return self.page.locator(f'#names tr[data-id="{group}"]')

    def select(self, group: str, *, also: bool = False) -> None:
        """Click a group, with Ctrl to add it."""
        cell = self.row(group).locator("td").nth(1)
        cell.click(modifiers=["Control"] if also else [])

    def type_name(self, group: str, name: str) -> None:
        """Type a name and press Enter."""
        field = self.row(group).locator("td.name input")
        field.click()
        field.press("Control+a")
        self.page.keyboard.insert_text(name)
        self.page.keyboard.press("Enter")

    def saved(self) -> None:
        """Wait until the last write is acknowledged."""
        self.until("document.getElementById('saved').textContent === 'saved'")

    def press(self, *keys: str) -> None:
        """Keys of the page, not of a field."""
        self.page.evaluate("document.activeElement.blur()")
        for key in keys:
            self.page.keyboard.press(key)

    def groups(self) -> dict[str, Any]:
        """Groups with cells, as the server has them for this tab's expert."""
        state = self.fetch("/api/state?who=" + self.page.evaluate("localStorage['maskless-who']"))
        return {group["id"]: group for group in state["groups"] if group["count"]}

    def fetch(self, path: str) -> Any:
        """What the server says to this tab."""
        return self.page.evaluate("path => fetch(path).then((r) => r.json())", path)

    def until(self, wanted: str | Callable[[], Any]) -> None:
        """Wait until an expression of the page, or of the test, is true.

        The page's own policy forbids what `wait_for_function` does: evaluating texts.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not (self.page.evaluate(wanted) if isinstance(wanted, str) else wanted()):
            assert time.monotonic() < deadline, f"never came true: {wanted}"
            self.page.wait_for_timeout(60)

    def changed(self, canvas: str, before: str) -> None:
        """Wait until a canvas shows something else."""
        self.until(lambda: self.pixels(canvas) != before)

    def shown(self, group: str) -> str:
        """The name in the table."""
        return str(self.row(group).locator("td.name input").input_value())

    def detail(self) -> str:
        """Text of the lower right view."""
        return str(self.page.locator("#detail").inner_text())

    def pixels(self, canvas: str) -> str:
        """What a canvas shows, as a data address."""
        return str(self.page.evaluate("id => document.getElementById(id).toDataURL()", canvas))
