"""`p2pnb.Panel()` without a room: Ada opens one from the panel, Ben enters it from his."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lobbies(browser, servers):
    """Two notebooks with an empty panel each."""
    notebooks = []
    for server, path in zip(servers, ("binder.ipynb", "binder-ben.ipynb"), strict=True):
        notebook = Notebook(browser, server, path)
        cell = notebook.add_cell("import p2pnb; panel = p2pnb.Panel(); panel")
        notebook.run_cell(cell)
        notebook.panel.wait_for()
        notebooks.append(notebook)
    yield notebooks
    for notebook in notebooks:
        assert not notebook.errors
        notebook.close()


def test_a_room_is_opened_and_entered_from_the_panels(lobbies, screenshots):
    ada, ben = lobbies
    ben.panel.screenshot(path=screenshots / "lab-lobby-light.png")
    ada.panel.get_by_label("Your name").fill("Ada")
    ada.panel.get_by_role("button", name="Create room").click()
    link = ada.panel.locator(".p2pnb-secret").nth(1).inner_text()
    ben.panel.get_by_label("Your name").fill("Ben")
    wrong = f"{link}s"
    ben.panel.get_by_label("Invite link or code").fill(wrong)
    ben.panel.get_by_role("button", name="Join", exact=True).click()
    ben.panel.get_by_text("secret words are not this room's").first.wait_for(timeout=15_000)
    ada.panel.get_by_text("tried to join with wrong words").first.wait_for(timeout=15_000)
    ben.panel.get_by_label("Invite link or code").fill(link)
    ben.panel.get_by_role("button", name="Join", exact=True).click()
    ben.panel.get_by_text("Ada", exact=True).first.wait_for(timeout=15_000)
    ada.panel.get_by_text("Ben", exact=True).first.wait_for(timeout=15_000)


def test_leaving_from_the_panel_ends_it_on_both_sides(lobbies):
    ada, ben = lobbies
    ben.panel.get_by_role("button", name="Leave").click()
    ben.panel.get_by_role("button", name="Leave", exact=True).last.click()
    ben.panel.get_by_text("You are no longer in this room").first.wait_for(timeout=15_000)
    ada.panel.get_by_text("Nobody else is here yet").wait_for(timeout=15_000)
