"""Ada and Ben pause each other's transfers, and fetch from each other what they share, through their panels."""

from __future__ import annotations

import os

import pytest

from tests.e2e.lab import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

BIG_BYTES = 300_000_000  # three times what is taken without asking: the offer waits until Ben says so
XSS = [
    "<img src=x onerror=window.__pwned=1>",
    "<script>window.__pwned=1</script>",
    '"><svg onload=window.__pwned=1>',
    "' onmouseover='window.__pwned=1' x='",
]


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    """A file that takes no room on the disk until it is sent, and whose end can be told from its beginning."""
    path = tmp_path_factory.mktemp("big") / "measurements.bin"
    with path.open("wb") as out:
        out.write(b"begin")
        out.truncate(BIG_BYTES)
        out.seek(-3, os.SEEK_END)
        out.write(b"end")
    return path


def transfer_row(notebook, name):
    return notebook.panel.locator(".p2pnb-transfer", has_text=name).first


def share_row(notebook, name):
    return notebook.panel.locator(".p2pnb-share", has_text=name).first


def test_a_file_is_paused_and_resumed_from_both_panels(pair, big_file, screenshots):
    ada, ben = pair
    ada.run_cell(ada.add_cell(f"sent = room.send_file({str(big_file)!r}); sent.state"))
    for notebook in pair:
        notebook.tab("Files")
    # Before anything moves: nobody has to be quick to see a pause.
    there, here = transfer_row(ada, big_file.name), transfer_row(ben, big_file.name)
    there.get_by_role("button", name=f"Pause {big_file.name}").click()
    there.get_by_text("paused by you").wait_for()
    ben.panel.get_by_role("button", name="Accept").click()
    here.get_by_text("paused by Ada").wait_for()
    here.get_by_role("button", name=f"Pause {big_file.name}").press("Enter")
    here.get_by_text("paused by you and Ada").wait_for()
    there.get_by_text("paused by you and Ben").wait_for()
    ada.panel.screenshot(path=screenshots / "lab-paused-light.png")
    assert not (ben.server.root / "p2pnb-files" / big_file.name).exists()
    there.get_by_role("button", name=f"Resume {big_file.name}").click()
    there.get_by_text("paused by Ben").wait_for()
    here.get_by_text("paused by you").wait_for()
    here.get_by_text("and Ada").wait_for(state="detached")
    here.get_by_role("button", name=f"Resume {big_file.name}").press("Enter")
    there.get_by_text("done").wait_for(timeout=60_000)
    here.get_by_text("done").wait_for(timeout=60_000)
    landed = ben.server.root / "p2pnb-files" / big_file.name
    wait_for(landed.exists, 30, "the file to land")
    assert landed.stat().st_size == BIG_BYTES
    with landed.open("rb") as content:
        assert content.read(5) == b"begin"
        content.seek(-3, os.SEEK_END)
        assert content.read() == b"end"


def test_a_file_that_failed_goes_again_with_a_click(pair):
    ada, ben = pair
    # Ben can't take it: a file stands where the folder for files has to be.
    ben.run_cell(
        ben.add_cell(
            "from pathlib import Path\n"
            "taken = Path('p2pnb-files'); kept = taken.rename('p2pnb-files-kept'); taken.write_text('in the way')"
        )
    )
    ada.run_cell(
        ada.add_cell("from pathlib import Path\nPath('late.txt').write_text('after all')\nroom.send_file('late.txt')")
    )
    ada.tab("Files")
    again = ada.panel.get_by_role("button", name="Try again: late.txt")
    again.wait_for()
    ben.run_cell(ben.add_cell("taken.unlink(); kept.rename(taken)"))
    again.click()
    landed = ben.server.root / "p2pnb-files" / "late.txt"
    wait_for(landed.exists, 30, "the file to land")
    assert landed.read_text() == "after all"
    again.wait_for(state="detached")


def test_a_table_is_shared_and_fetched_from_the_panel_whole_and_in_part(pair, screenshots):
    ada, ben = pair
    table = "pd.DataFrame({'day': range(1000), 'price': [n * 1.5 for n in range(1000)], 'note': ['x'] * 1000})"
    ada.run_cell(ada.add_cell(f"import pandas as pd\nroom.share('quotes', {table})"))
    for notebook in pair:
        notebook.tab("Data")
    own, offered = share_row(ada, "quotes"), share_row(ben, "quotes")
    own.get_by_text("shared by you").wait_for()
    offered.get_by_text("shared by Ada").wait_for()
    offered.get_by_text("1,000 rows × 3 columns").wait_for()
    offered.get_by_text("Preview").click()
    offered.get_by_role("cell", name="1.5", exact=True).wait_for()
    offered.get_by_role("button", name="Fetch quotes").click()
    offered.get_by_text("Fetched into").wait_for()
    expression = offered.get_by_text('room.inbox["quotes"]').inner_text()
    assert "(1000, 3)" in ben.run_cell(ben.add_cell(f"{expression}.shape"))
    own.get_by_text("2 people have all of it").wait_for(timeout=15_000)
    ben.panel.screenshot(path=screenshots / "lab-shares-light.png")
    offered.get_by_role("button", name="Fetch a part of quotes").press("Enter")
    form = offered.get_by_role("form", name="Fetch a part of quotes")
    form.get_by_role("checkbox", name="price").check()
    form.get_by_label("from row").fill("10")
    form.get_by_label("to row").fill("20")
    ben.theme("JupyterLab Dark")
    ben.panel.screenshot(path=screenshots / "lab-shares-dark.png")
    ben.theme("JupyterLab Light")
    shape = ben.add_cell("room.inbox['quotes'].shape")
    form.get_by_role("button", name="Fetch this part").click()
    wait_for(lambda: "(10, 1)" in ben.run_cell(shape), 30, "the part to come")


def test_a_newer_version_says_so_and_what_is_taken_back_disappears(pair):
    ada, ben = pair
    ada.run_cell(ada.add_cell("room.share('quotes', pd.DataFrame({'day': [1]}))"))
    share_row(ben, "quotes").get_by_text("version 2, newer than yours").wait_for()
    ada.tab("Data")
    share_row(ada, "quotes").get_by_role("button", name="Unshare quotes").click()
    share_row(ada, "quotes").get_by_role("button", name="Unshare", exact=True).click()
    share_row(ada, "quotes").wait_for(state="detached")
    share_row(ben, "quotes").wait_for(state="detached")
    ben.panel.get_by_text("Nothing is shared").wait_for()


def test_markup_in_what_is_shared_is_shown_as_text_and_runs_nothing(pair):
    ada, ben = pair
    ada.run_cell(
        ada.add_cell(f"for text in {XSS!r}:\n    room.share(text, pd.DataFrame({{text: [text], 'n': [1]}}))\n")
    )
    ben.tab("Data")
    for text in XSS:
        row = share_row(ben, text)
        row.locator(".p2pnb-name").get_by_text(text, exact=True).first.wait_for()
        row.get_by_text("Preview").click()
        row.get_by_role("cell", name=text, exact=True).wait_for()
        row.get_by_role("columnheader").get_by_text(text, exact=True).wait_for()
        row.get_by_text("Part…").click()
        row.get_by_role("form").get_by_text(text, exact=True).hover()
    assert ben.page.evaluate("window.__pwned") is None
    assert (
        ben.panel.locator(":is(script, img, iframe, a, object, embed, [onerror], [onload], [onmouseover])").count() == 0
    )
    assert "onerror" not in ben.saved()


def test_shares_and_transfers_fit_a_narrow_panel(pair, screenshots):
    _, ben = pair
    ben.panel.evaluate("e => { e.parentElement.style.width = '340px' }")
    for name in ("Files", "Data"):
        ben.tab(name)
        assert ben.panel.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), f"{name} is wider than the panel"
        ben.panel.screenshot(path=screenshots / f"lab-{name.lower()}-narrow.png")
    ben.panel.evaluate("e => { e.parentElement.style.width = '' }")
