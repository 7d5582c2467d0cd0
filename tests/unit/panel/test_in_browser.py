"""The panel in a real browser, over a port that needs no kernel (``frontend/dev``)."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

FRONTEND = Path(__file__).parents[3] / "jupyter_extension" / "frontend"
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.skipif(not (FRONTEND / "node_modules").exists(), reason="the front end's packages are not installed"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    node = shutil.which("node")
    assert node is not None
    subprocess.run([node, "build.mjs", "--harness"], cwd=FRONTEND, check=True, capture_output=True, timeout=60)
    handler = functools.partial(_Quiet, directory=str(FRONTEND / "dist"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/harness.html"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        there = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield there
        there.close()


def test_hostile_text_neither_runs_nor_asks_for_anything(address: str, browser: Browser) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda _: pytest.fail("a dialog opened"))
    page.goto(address)
    page.wait_for_selector("[role=tablist]")
    count = page.evaluate("corpus.length")
    assert count >= 8
    for payload in range(count):
        for view in ("room", "chat", "files", "data"):
            page.goto(f"{address}?state=xss&payload={payload}&view={view}")
            page.wait_for_selector(".p2pnb-body")
            page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            page.evaluate(
                "document.querySelectorAll('.p2pnb-share [aria-expanded=false]').forEach((one) => one.click())"
            )
            text = page.evaluate(f"corpus[{payload}]")
            assert text in (page.text_content(".p2pnb") or "")
            assert page.evaluate("window.__pwned") is None
            hostile = "#root :is(script, img, iframe, a, object, embed, form[action], [style], [onerror], [onload])"
            assert page.locator(hostile).count() == 0
    assert {url.split("?")[0] for url in asked if url.startswith("http")} <= {
        address,
        address.replace("harness.html", "harness.js"),
        address.replace("harness.html", "panel.css"),
    }
    page.close()


def test_it_can_be_used_by_keyboard_alone(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(address)
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tab") == "chat"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.tab") == "data"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tab") == "room"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "log"
    page.keyboard.press("Tab")
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    page.wait_for_selector(".p2pnb-message.p2pnb-mine:not(.p2pnb-pending) >> text=lines")
    assert page.input_value("textarea") == ""
    page.close()


def test_the_log_follows_only_who_is_at_its_end(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 600})
    page.goto(f"{address}?view=chat")
    page.wait_for_selector(".p2pnb-message")
    rest = "(() => { const log = document.querySelector('.p2pnb-log');"
    rest += " return log.scrollHeight - log.scrollTop - log.clientHeight })()"
    page.evaluate("for (let i = 0; i < 30; i++) port.say({ text: 'line ' + i })")
    page.wait_for_selector("text=line 29")
    assert page.evaluate(rest) < 2
    with page.expect_event("console", lambda message: message.text == "scrolled"):
        page.evaluate(
            "{ const log = document.querySelector('.p2pnb-log');"
            " log.addEventListener('scroll', () => console.log('scrolled'), { once: true }); log.scrollTop = 0 }"
        )
    page.evaluate("port.say({ text: 'the last one' })")
    page.click("text=New messages")
    assert page.evaluate(rest) < 2
    page.close()


def test_a_transfer_is_paused_and_resumed_by_keyboard(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{address}?view=files")
    row = page.locator(".p2pnb-transfer", has_text="whiteboard.jpg")
    row.get_by_role("button", name="Pause whiteboard.jpg").focus()
    page.keyboard.press("Enter")
    row.get_by_text("paused by you").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Resume whiteboard.jpg"  # still there
    page.keyboard.press("Space")
    row.get_by_role("button", name="Pause whiteboard.jpg").wait_for()
    assert page.evaluate("port.sent.map((one) => one.cmd).filter((cmd) => cmd !== 'snapshot')") == ["pause", "resume"]
    page.get_by_role("button", name="Try again: photos-of-the-lab").press("Enter")
    assert page.evaluate("port.sent.at(-1).cmd") == "retry"
    page.close()


def test_a_part_of_a_share_is_fetched_by_keyboard(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 340, "height": 700})
    page.goto(f"{address}?view=data")
    page.get_by_role("button", name="Fetch a part of prices").press("Enter")
    form = page.get_by_role("form", name="Fetch a part of prices")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("close", "day"):
        form.get_by_role("checkbox", name=name, exact=True).press("Space")
    assert form.get_by_role("checkbox", name="a column with a rather long na…").is_disabled()
    form.get_by_label("from row").press_sequentially("x")
    form.get_by_label("to row").press_sequentially("10")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("Rows are whole numbers").wait_for()
    form.get_by_label("from row").fill("5")
    page.keyboard.press("Enter")
    row = page.locator(".p2pnb-share", has_text="version 3")
    row.get_by_text('room.inbox["prices"]').wait_for()
    assert page.evaluate("(({share, owner, columns, rows}) => [share, owner, columns, rows])(port.sent.at(-1))") == [
        "prices",
        "Ben",
        ["day", "close"],
        [5, 10],
    ]
    labels = "[...document.querySelectorAll('.p2pnb-tick')].map((one) => one.getBoundingClientRect().height)"
    assert min(page.evaluate(labels)) >= 24
    page.close()


def test_an_own_share_is_taken_back_only_when_it_was_said_twice(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{address}?view=data")
    unshare = page.get_by_role("button", name="Unshare baseline")
    unshare.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Keep"
    page.keyboard.press("Escape")
    unshare.wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Unshare"
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.evaluate("port.patch({ shares: model.room.shares.value.map((one) => ({ ...one, holders: [] })) })")
    assert page.evaluate("document.activeElement.textContent") == "Unshare"  # nothing new takes the focus away
    page.keyboard.press("Enter")
    unshare.wait_for(state="detached")
    assert page.evaluate("port.sent.filter((one) => one.cmd === 'unshare').map((one) => one.share)") == ["baseline"]
    page.close()


@pytest.mark.parametrize("width", [320, 360, 820])
def test_nothing_is_wider_than_the_page_and_everything_can_be_hit(address: str, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700})
    for query in ("view=room", "view=chat", "view=files", "view=data", "state=lobby", "state=alone", "state=locked"):
        page.goto(f"{address}?{query}")
        page.wait_for_selector(".p2pnb-body")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), query
        small = page.evaluate(
            "[...document.querySelectorAll('.p2pnb :is(button, select, textarea, summary, input:not([hidden]))')]"
            ".filter((one) => { const box = one.getBoundingClientRect(); return box.width < 24 || box.height < 24 })"
            ".map((one) => one.outerHTML)"
        )
        assert small == [], query
    page.close()


def test_a_busy_kernel_is_said_to_be_busy(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{address}?state=busy&view=chat")
    page.fill("textarea", "hello")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=sending…")
    page.wait_for_selector(".p2pnb-pending >> text=The kernel is busy; this goes out when the cell ends.")
    page.close()
