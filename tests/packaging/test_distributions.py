"""The sdist, the wheel and what `pip install` makes of them, built from a clean copy on a bare machine."""

from __future__ import annotations

import configparser
import email
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Run

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]

# Nothing listens there: a build that wants npm's registry fails.
NO_REGISTRY = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_offline": "true"}


@pytest.fixture(scope="module")
def version(root: Path) -> str:
    declared: str = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return declared


@pytest.fixture(scope="module")
def sdist(
    export: Callable[[Path], Path], run: Run, path_without_node: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The sdist, built where there is no Node, from files that include no built front end."""
    checkout = export(tmp_path_factory.mktemp("sdist") / "checkout")
    assert not (checkout / "p2pnb/panel/static").exists()
    # What a developer's checkout is full of must stay out.
    (checkout / "jupyter_extension/frontend/node_modules/stray").mkdir(parents=True)
    (checkout / "jupyter_extension/frontend/node_modules/stray/index.js").write_text("")
    (checkout / "stray.csv").write_text("")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", "dist", ".", cwd=checkout, path=path_without_node)
    (built,) = (checkout / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, run: Run, path_without_node: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist with no Node and no npm registry."""
    target = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", target, sdist)
    output = run(*command, cwd=target, path=path_without_node, **NO_REGISTRY)
    assert "nodejs" not in output, "building from the sdist must not ask for Node"
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, run: Run, new_venv: Callable[[str], Path]) -> Path:
    """A fresh virtual environment after `pip install` of the wheel alone: its folder of commands."""
    commands = new_venv("installed") / "bin"
    run(commands / "python", "-m", "pip", "install", "--quiet", wheel, cwd=commands)
    return commands


def test_the_sdist_carries_sources_and_the_built_front_end(sdist: Path, version: str) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"p2pnb-{version}/") for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "hatch_build.py",
        "jupyter_extension/frontend/package.json",
        "jupyter_extension/frontend/package-lock.json",
        "jupyter_extension/jupyter-config/p2pnb.json",
        "jupyter_extension/p2pnb_server/__init__.py",
        "p2pnb/__init__.py",
        "p2pnb/panel/static/panel.css",
        "p2pnb/panel/static/panel.js",
        "p2pnb/panel/static/sources.sha256",
    } <= names
    stray = [name for name in names if "node_modules" in name or "stray" in name or "__pycache__" in name]
    assert not stray


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path, version: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {
        "p2pnb",
        "p2pnb_server",
        f"p2pnb-{version}.data",
        f"p2pnb-{version}.dist-info",
    }
    assert {
        "p2pnb/__init__.py",
        "p2pnb/py.typed",
        "p2pnb/panel/static/panel.css",
        "p2pnb/panel/static/panel.js",
        "p2pnb_server/__init__.py",
        "p2pnb_server/py.typed",
        f"p2pnb-{version}.data/data/etc/jupyter/jupyter_server_config.d/p2pnb.json",
        f"p2pnb-{version}.dist-info/licenses/LICENSE",
    } <= names
    assert not [name for name in names if name.endswith((".ts", ".tsx", ".pyc"))]


def test_the_wheel_carries_the_bundle_of_the_sdist_unchanged(wheel: Path, sdist: Path, version: str) -> None:
    for name in ("panel.js", "panel.css"):
        inner = f"p2pnb/panel/static/{name}"
        with zipfile.ZipFile(wheel) as in_wheel, tarfile.open(sdist) as in_sdist:
            member = in_sdist.extractfile(f"p2pnb-{version}/{inner}")
            assert member
            assert in_wheel.read(inner) == member.read() != b""


def test_the_wheel_says_what_it_is(wheel: Path, version: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"p2pnb-{version}.dist-info/METADATA"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"p2pnb-{version}.dist-info/entry_points.txt").decode())
        assert "Root-Is-Purelib: true" in archive.read(f"p2pnb-{version}.dist-info/WHEEL").decode()
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert dict(scripts["console_scripts"]) == {"p2pnb": "p2pnb.cli:main"}


def test_installing_the_wheel_enables_the_server_extension(installed: Path, run: Run) -> None:
    listed = run(installed / "jupyter-server", "extension", "list", cwd=installed)
    assert "p2pnb_server enabled" in listed
    assert [line for line in listed.splitlines() if "p2pnb_server" in line and line.rstrip().endswith("OK")], listed


def test_the_installed_package_works_without_any_extra(installed: Path, run: Run) -> None:
    code = "import p2pnb; print(p2pnb.__file__, [getattr(p2pnb, name) for name in p2pnb.__all__])"
    assert str(installed.parent) in run(installed / "python", "-c", code, cwd=installed)
    run(installed / "python", "-c", "from p2pnb.panel import Panel", cwd=installed)
    assert "demo" in run(installed / "p2pnb", "--help", cwd=installed)
    run(installed / "python", "-m", "pip", "check", cwd=installed)
