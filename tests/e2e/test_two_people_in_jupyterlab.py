"""Ada and Ben, each in JupyterLab on a server of their own, driven through the demo notebooks and the panel."""

from __future__ import annotations

import time

import pytest

from tests.e2e.lab import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_both_panels_show_the_other_and_a_direct_path(pair, screenshots):
    ada, ben = pair
    ada.panel.get_by_text("Ben", exact=True).first.wait_for()
    ben.panel.get_by_text("Ada", exact=True).first.wait_for()
    ada.panel.get_by_text("direct TCP").first.wait_for(timeout=30_000)
    ben.panel.get_by_text("direct TCP").first.wait_for(timeout=30_000)
    ada.panel.get_by_text(" ms").first.wait_for()
    ada.panel.screenshot(path=screenshots / "lab-room-light.png")
    ada.panel.get_by_role("button", name="Show invite").click()
    ada.panel.get_by_role("img", name="QR code").wait_for()
    ada.page.screenshot(path=screenshots / "lab-notebook.png")
    ada.panel.get_by_role("button", name="Hide").click()


def test_both_see_the_same_verification_words(pair):
    ada, ben = pair
    assert ada.run_cell(2) == ben.run_cell(2)


def test_chat_goes_both_ways_through_the_panels(pair, screenshots):
    ada, ben = pair
    for one, other, text in ((ada, ben, "from Ada's panel <b>not bold</b>"), (ben, ada, "from Ben's panel 👋")):
        one.tab("Chat")
        other.tab("Chat")
        one.panel.get_by_role("textbox", name="Message").fill(text)
        one.page.keyboard.press("Enter")
        other.panel.get_by_role("log").get_by_text(text, exact=True).wait_for(timeout=10_000)
        # the sender sees it twice for a moment: what it wrote, and what the room has of it
        one.panel.get_by_role("log").get_by_text(text, exact=True).first.wait_for(timeout=10_000)
    ada.panel.screenshot(path=screenshots / "lab-chat-light.png")


def test_the_panel_answers_while_a_cell_runs(pair):
    ada, ben = pair
    busy = ben.add_cell("import time; time.sleep(12)")
    began = time.monotonic()
    ben.start_cell(busy)
    wait_for(lambda: ben.count(busy) == "[*]:", 5, "the cell to run")
    ada.tab("Chat")
    ada.panel.get_by_role("textbox", name="Message").fill("are you busy?")
    ada.page.keyboard.press("Enter")
    ben.tab("Chat")
    ben.panel.get_by_role("log").get_by_text("are you busy?").wait_for(timeout=5_000)
    ben.panel.get_by_role("textbox", name="Message").fill("very, and still here")
    ben.page.keyboard.press("Enter")
    ada.panel.get_by_role("log").get_by_text("very, and still here").wait_for(timeout=5_000)
    assert time.monotonic() - began < 11, "the messages came only when the cell had ended"
    assert ben.count(busy) == "[*]:"
    wait_for(lambda: ben.count(busy) != "[*]:", 20, "the cell to end")


def test_a_tab_that_is_frozen_or_loaded_again_loses_nothing(pair):
    """F15: the room lives in the kernel, and its panel shows what came meanwhile."""
    ada, ben = pair
    ada.tab("Chat")
    ben.tab("Chat")
    ada.freeze()
    ben.panel.get_by_role("textbox", name="Message").fill("while you sleep")
    ben.page.keyboard.press("Enter")
    ben.run_cell(ben.add_cell("room.send({'seen': False}, 'note').result(10).state"))
    states = ben.add_cell(
        "import time; until = time.monotonic() + 12; states = set()\n"
        "while time.monotonic() < until: states.add(room.peers['Ada'].state); time.sleep(0.1)\n"
        "states"
    )  # longer than it takes to notice a dead path
    assert "{'here'}" in ben.run_cell(states)
    ada.thaw(after_s=12)
    ada.panel.get_by_role("log").get_by_text("while you sleep").wait_for(timeout=10_000)
    ada.reload()
    ada.panel.wait_for()
    ada.tab("Chat")
    log = ada.panel.get_by_role("log")
    log.get_by_text("while you sleep").wait_for(timeout=20_000)
    ada.panel.get_by_role("textbox", name="Message").fill("good morning")
    ada.page.keyboard.press("Enter")
    ben.panel.get_by_role("log").get_by_text("good morning", exact=True).wait_for(timeout=10_000)
    ada.tab("Data")
    ada.panel.get_by_text("note").first.wait_for()


def test_a_file_from_the_browser_lands_at_the_other_side(pair, tmp_path, screenshots):
    ada, ben = pair
    content = bytes(range(256)) * 20_000  # 5 MB: several pieces
    source = tmp_path / "über die Straße.bin"
    source.write_bytes(content)
    ada.tab("Files")
    ada.panel.locator("input[type=file]:not([webkitdirectory])").set_input_files(source)
    ben.tab("Files")
    ben.panel.get_by_text("über die Straße.bin").first.wait_for(timeout=60_000)
    landed = ben.server.root / "p2pnb-files" / "über die Straße.bin"
    wait_for(landed.exists, 60, "the file to land")
    assert landed.read_bytes() == content
    ben.panel.screenshot(path=screenshots / "lab-files-light.png")


def test_objects_arrive_with_preview_and_the_line_that_fetches_them(pair, screenshots):
    ada, ben = pair
    for cell in (3, 4, 5):
        ada.run_cell(cell)
    bar = ada.page.locator(".jp-Notebook .jp-CodeCell").nth(4).locator(".widget-inline-hbox")
    bar.get_by_text("prices · done").wait_for()
    bar.screenshot(path=screenshots / "lab-progress.png")
    ben.tab("Data")
    ben.panel.get_by_text("prices", exact=True).first.wait_for(timeout=60_000)
    ben.panel.get_by_text('room.inbox["prices"]').first.wait_for()
    assert "100000" in ben.run_cell(3).replace(",", "")
    assert "hello.txt" in ben.run_cell(4)
    ben.panel.screenshot(path=screenshots / "lab-data-light.png")
    ben.theme("JupyterLab Dark")
    ben.panel.screenshot(path=screenshots / "lab-data-dark.png")
    ben.theme("JupyterLab Light")


def test_the_rest_of_the_notebooks_runs(pair):
    ada, ben = pair
    ben.run_cell(5)
    ada.start_cell(6)
    ben.run_cell(6)
    ada.page.get_by_text("((512, 1024), dtype('float32'))").wait_for()
    ada.run_cell(7)


def test_a_large_item_waits_for_accept_in_the_panel(pair, screenshots):
    ada, ben = pair
    cell = ada.add_cell('big = room.send(b"x" * 101_000_000, "big"); big.state')
    ada.run_cell(cell)
    ben.tab("Data")
    ben.panel.get_by_role("button", name="Decline").first.wait_for()
    ben.panel.screenshot(path=screenshots / "lab-offer-light.png")
    ben.panel.get_by_role("button", name="Decline").first.click()
    ada.write_cell(cell, "big.state")
    wait_for(lambda: "declined" in ada.run_cell(cell), 20, "Ada to hear of it")


def test_markup_from_a_peer_is_shown_as_text_and_runs_nothing(pair):
    ada, ben = pair
    corpus = [
        "<img src=x onerror=window.__pwned=1>",
        "<script>window.__pwned=1</script>",
        "[x](javascript:window.__pwned=1)",
    ]
    cell = ada.add_cell(
        "import pandas as pd\n"
        f"for text in {corpus!r}:\n"
        "    room.chat(text)\n"
        "    room.send(pd.DataFrame({text: [text]}), text)\n",
    )
    ada.run_cell(cell)
    for name in ("Chat", "Data"):
        ben.tab(name)
        ben.panel.get_by_text(corpus[0]).first.wait_for()
    ben.page.wait_for_timeout(500)
    assert ben.page.evaluate("() => window.__pwned") is None
    assert ada.page.evaluate("() => window.__pwned") is None


def test_notebooks_are_saved_without_the_secret(pair):
    ada, ben = pair
    ada.tab("Room")
    if ada.panel.get_by_role("button", name="Show invite").count():
        ada.panel.get_by_role("button", name="Show invite").click()
    code = ada.panel.locator(".p2pnb-secret").nth(0).inner_text()
    words = code.split("-")[1:]
    assert len(words) == 4
    assert "-".join(words) not in ada.saved()
    # what others said and sent is on Ben's screen, in the panel, and nowhere in his file
    assert "onerror" not in ben.saved()


def test_a_narrow_panel_is_usable(pair, screenshots):
    ada, _ = pair
    ada.panel.evaluate("e => { e.parentElement.style.width = '340px' }")
    for name in ("Room", "Chat", "Files", "Data"):
        ada.tab(name)
        assert ada.panel.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), f"{name} is wider than the panel"
    ada.tab("Room")
    ada.panel.screenshot(path=screenshots / "lab-narrow.png")
    ada.panel.evaluate("e => { e.parentElement.style.width = '' }")


def test_leaving_shows_on_both_sides(pair):
    ada, ben = pair
    ben.run_cell(8)
    ada.tab("Room")
    ada.panel.get_by_text("Nobody else is here yet").wait_for(timeout=10_000)
