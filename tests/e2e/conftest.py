"""Two Jupyter servers with JupyterLab, and a headless Chromium to use them as two people would."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2pnb.demo.servers import JupyterServer, copy_notebooks
from tests.e2e.lab import Notebook

SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")  # no longer: Playwright's loop must not outlive the tests that drive it
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")  # JupyterLab would open again what an earlier module left open
def servers(tmp_path_factory):
    """Ada's and Ben's servers, with the demo notebooks in their folders."""
    folder = tmp_path_factory.mktemp("servers")
    options = ("--LabApp.expose_app_in_browser=True",)
    with JupyterServer("ada", folder, options=options) as ada, JupyterServer("ben", folder, options=options) as ben:
        for server in (ada, ben):
            copy_notebooks(server)
        yield ada, ben


@pytest.fixture(scope="module")
def pair(browser, servers):
    """Both notebooks open and in one room; the invite went by copy and paste."""
    ada = Notebook(browser, servers[0], "ada.ipynb")
    ben = Notebook(browser, servers[1], "ben.ipynb")
    ada.run_cell(0)
    ada.panel.wait_for()
    link = ada.panel.locator(".p2pnb-secret").nth(1).inner_text()
    ben.write_cell(0, f'invite = "{link}"')
    ben.run_cell(0)
    ben.run_cell(1)
    ben.panel.wait_for()
    ada.run_cell(1)
    yield ada, ben
    assert not ada.errors and not ben.errors
    assert not ada.dialogs and not ben.dialogs
    ada.close()
    ben.close()


@pytest.fixture(scope="session")
def screenshots():
    SCREENSHOTS.mkdir(exist_ok=True)
    return SCREENSHOTS


# pytest-jupyter wraps every test in a loop of its own, which Playwright's can't share.
@pytest.fixture(autouse=True)
def jp_asyncio_loop():
    return None


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    return None
