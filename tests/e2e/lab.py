"""JupyterLab as a person uses it, through Playwright."""

from __future__ import annotations

import time
from collections.abc import Callable

import nbformat
from playwright.sync_api import Browser, Locator, Page

from p2pnb.demo.servers import JupyterServer

TIMEOUT_MS = 60_000
_WATCH_GAPS = """() => {
  window.__gap = 0; window.__last = Date.now();
  setInterval(() => { const now = Date.now(); window.__gap = Math.max(window.__gap, now - window.__last);
                      window.__last = now }, 50);
  return 1 }"""


class Notebook:
    """One notebook of one server, in a browser window of its own."""

    def __init__(self, browser: Browser, server: JupyterServer, path: str, *, dark: bool = False) -> None:
        self.server = server
        self.path = path
        self.context = browser.new_context(viewport={"width": 1400, "height": 1000})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.dialogs: list[str] = []
        self.page.on("dialog", self._on_dialog)
        self.page.goto(server.page(path))
        self._ready()
        if dark:
            self.theme("JupyterLab Dark")

    def _ready(self) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; return 1 }")

    def reload(self) -> None:
        """Load the page again, as a person would; the kernel goes on."""
        self.saved()
        self.page.reload()
        self._ready()

    def freeze(self) -> None:
        """Do with the page what a browser does with a tab that nobody looks at: nothing runs in it until `thaw`.

        By its debugger: headless Chromium takes every page for visible, and freezes none of those.
        """
        self.page.evaluate(_WATCH_GAPS)
        self._debugger = self.context.new_cdp_session(self.page)
        self._debugger.send("Debugger.enable")
        self._debugger.send("Debugger.pause")

    def thaw(self, after_s: float) -> None:
        """Let the page run again, after it stood for so long at least."""
        self._debugger.send("Debugger.resume")
        self._debugger.send("Debugger.disable")
        self._debugger.detach()
        stood = self.page.evaluate("() => Math.max(window.__gap, Date.now() - window.__last)") / 1000
        assert stood >= after_s, f"the page stood for {stood:.1f} s only, so this shows nothing"

    def _on_dialog(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def theme(self, name: str) -> None:
        self._command("apputils:change-theme", f"{{theme: {name!r}}}")
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def write_cell(self, index: int, text: str) -> None:
        """Type into a code cell, replacing what is there."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def add_cell(self, text: str) -> int:
        """Add a code cell at the end of the notebook; return its index."""
        cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        count = cells.count()
        cells.nth(count - 1).locator(".cm-content").click()
        self._command("notebook:insert-cell-below")
        wait_for(lambda: cells.count() == count + 1, 10, "the new cell")
        self.write_cell(count, text)
        return count

    def _command(self, name: str, arguments: str = "{}") -> None:
        self.page.evaluate(
            f"async () => {{ await window.jupyterapp.commands.execute({name!r}, {arguments}); return 1 }}"
        )

    def start_cell(self, index: int) -> None:
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run_cell(self, index: int, timeout_s: float = 60) -> str:
        """Run a code cell, wait for its end and return the text of its output."""
        before = self.count(index)
        self.start_cell(index)
        wait_for(lambda: self.count(index) not in (before, "[*]:", "[ ]:"), timeout_s, f"cell {index} of {self.path}")
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        shown = "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts())
        assert "Traceback (most recent call last)" not in shown, shown
        return shown

    def count(self, index: int) -> str:
        prompt = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-InputArea-prompt")
        return prompt.first.inner_text().strip()

    @property
    def panel(self) -> Locator:
        return self.page.locator(".p2pnb").first

    def tab(self, name: str) -> None:
        self.panel.get_by_role("tab", name=name).click()

    def saved(self) -> str:
        """Save the notebook and return the file's text."""
        self._command("docmanager:save")
        text = (self.server.root / self.path).read_text()
        nbformat.reads(text, as_version=4)
        return text

    def close(self) -> None:
        self.context.close()


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)
