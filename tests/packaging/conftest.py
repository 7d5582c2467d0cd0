"""Fixtures for the packaging tests: clean copies of the checkout, and machines that lack things.

A copy holds what git would hand to somebody else (tracked files, and new ones that are not ignored), so
nothing that merely lies about in this checkout can make a test pass.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_COMMANDS = {"node", "nodejs", "npm", "npx", "corepack"}


class Run(Protocol):
    """Run a command as a user without this project's environment would; fail the test if it fails."""

    def __call__(self, *command: str | Path, cwd: Path, path: Path | str | None = None, **extra: str) -> str: ...


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a command's output without colours, run without the settings of this Python, pytest or Jupyter."""
    config = tmp_path_factory.mktemp("jupyter-config")
    foreign = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "JPY_", "P2PNB", "COVERAGE", "PYTEST")

    def run_command(*command: str | Path, cwd: Path, path: Path | str | None = None, **extra: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"JUPYTER_CONFIG_DIR": str(config), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra}
        if path is not None:
            environment["PATH"] = str(path)
        finished = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, f"{' '.join(map(str, command))}\n{finished.stdout}"
        return re.sub(r"\x1b\[[0-9;]*m", "", finished.stdout)

    return run_command


@pytest.fixture(scope="session")
def export(root: Path, run: Run) -> Callable[[Path], Path]:
    """Return a function that copies the checkout, as git knows it, to a new folder."""
    if not (root / ".git").exists():
        pytest.skip("this is not a git checkout: there is no list of the files that belong to it")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root)

    def copy(target: Path) -> Path:
        for name in filter(None, listed.split("\0")):
            source = root / name
            if source.is_file():  # a file deleted but not yet committed is still listed
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)
        return target

    return copy


@pytest.fixture(scope="session")
def path_without_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with every command of this machine but Node's: a machine with only Python and git."""
    folder = tmp_path_factory.mktemp("no-node")
    for origin in os.environ["PATH"].split(os.pathsep):
        for command in Path(origin).glob("*"):
            link = folder / command.name
            if command.name not in NODE_COMMANDS and not link.is_symlink():
                link.symlink_to(command)
    return folder


@pytest.fixture(scope="session")
def new_venv(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes an empty virtual environment with pip and returns its folder."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "venv"
        venv.create(folder, with_pip=True)
        return folder

    return make
