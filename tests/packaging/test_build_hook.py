"""The build hook builds the front end when it must, and otherwise asks for nothing.

These tests use a front end without dependencies, so that real npm and real Node build it with no network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

BUILD_SCRIPT = """
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
const target = "../../p2pnb/panel/static";
mkdirSync(target, { recursive: true });
writeFileSync(`${target}/panel.js`, readFileSync("src/panel.ts"));
if (!process.env.FORGET_CSS) writeFileSync(`${target}/panel.css`, "");
"""


@pytest.fixture(scope="module")
def hook(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", root / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    sources = tmp_path / "project" / "jupyter_extension" / "frontend"
    (sources / "src").mkdir(parents=True)
    package = {"name": "front", "version": "1.0.0", "private": True, "type": "module"}
    package |= {"engines": {"node": ">=18"}, "scripts": {"build": "node build.mjs"}}
    lock = {"name": "front", "version": "1.0.0", "lockfileVersion": 3, "requires": True}
    lock["packages"] = {"": {"name": "front", "version": "1.0.0"}}
    (sources / "package.json").write_text(json.dumps(package))
    (sources / "package-lock.json").write_text(json.dumps(lock))
    (sources / "build.mjs").write_text(BUILD_SCRIPT)
    (sources / "src" / "panel.ts").write_text("export const one = 1;\n")
    return tmp_path / "project"


@pytest.fixture
def without_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which no Node can be found, not even one that was installed beside this Python."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(empty))
    return {"PATH": str(empty)}


def test_a_missing_bundle_is_built(hook: ModuleType, project: Path) -> None:
    frontend = hook.Frontend(project)
    assert not frontend.up_to_date
    frontend.build()
    assert frontend.up_to_date
    assert (project / "p2pnb/panel/static/panel.js").read_text() == "export const one = 1;\n"


def test_an_unchanged_bundle_needs_no_node(hook: ModuleType, project: Path, without_node: dict[str, str]) -> None:
    hook.Frontend(project).build()
    hook.Frontend(project, without_node).build()
    (project / "jupyter_extension/frontend/src/panel.ts").write_text("export const two = 2;\n")
    with pytest.raises(hook.BuildError, match=r"needs Node\.js 18 or newer"):
        hook.Frontend(project, without_node).build()


@pytest.mark.parametrize("name", ["src/panel.ts", "src/new.css", "package.json", "build.mjs"])
def test_any_changed_source_makes_the_bundle_stale(hook: ModuleType, project: Path, name: str) -> None:
    frontend = hook.Frontend(project)
    frontend.build()
    with (project / "jupyter_extension/frontend" / name).open("a") as source:
        source.write("\n")
    assert not frontend.up_to_date


@pytest.mark.parametrize("name", ["node_modules/x/index.js", "dist/panel.js", "tsconfig.tsbuildinfo", ".cache/x.json"])
def test_what_tools_leave_behind_does_not(hook: ModuleType, project: Path, name: str) -> None:
    frontend = hook.Frontend(project)
    frontend.build()
    left = project / "jupyter_extension/frontend" / name
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("{}")
    assert frontend.up_to_date


def test_times_do_not_matter(hook: ModuleType, project: Path) -> None:
    frontend = hook.Frontend(project)
    frontend.build()
    copied = project.with_name("copy")
    shutil.copytree(project, copied, copy_function=shutil.copyfile)
    os.utime(copied / "jupyter_extension/frontend/src/panel.ts")
    assert hook.Frontend(copied).up_to_date


def test_a_lost_file_of_the_bundle_is_built_again(hook: ModuleType, project: Path) -> None:
    frontend = hook.Frontend(project)
    frontend.build()
    (project / "p2pnb/panel/static/panel.css").unlink()
    assert not frontend.up_to_date
    frontend.build()
    assert (project / "p2pnb/panel/static/panel.css").is_file()


def test_a_failed_build_is_not_taken_for_a_good_one(hook: ModuleType, project: Path) -> None:
    frontend = hook.Frontend(project)
    frontend.build()
    (project / "jupyter_extension/frontend/build.mjs").write_text("process.exit(3);")
    with pytest.raises(hook.BuildError, match="npm run build` failed"):
        frontend.build()
    assert not frontend.up_to_date


def test_a_build_that_forgets_a_file_is_an_error(hook: ModuleType, project: Path) -> None:
    frontend = hook.Frontend(project, {**os.environ, "FORGET_CSS": "1"})
    with pytest.raises(hook.BuildError, match=r"did not write panel\.css"):
        frontend.build()
    assert not frontend.up_to_date


@pytest.mark.parametrize("locked", [True, False])
def test_an_unreachable_registry_is_named_with_what_to_do(
    hook: ModuleType, project: Path, tmp_path: Path, locked: bool
) -> None:
    with socket.socket() as refusing:  # bound, never listening: every connection is refused
        refusing.bind(("127.0.0.1", 0))
        registry = f"http://127.0.0.1:{refusing.getsockname()[1]}/"
        sources = project / "jupyter_extension/frontend"
        package = json.loads((sources / "package.json").read_text())
        package["dependencies"] = {"preact": "10.0.0"}
        (sources / "package.json").write_text(json.dumps(package))
        lock = json.loads((sources / "package-lock.json").read_text())
        lock["packages"][""]["dependencies"] = package["dependencies"]
        lock["packages"]["node_modules/preact"] = {
            "version": "10.0.0",
            "resolved": f"{registry}preact/-/preact-10.0.0.tgz",
        }
        (sources / "package-lock.json").write_text(json.dumps(lock))
        if not locked:
            (sources / "package-lock.json").unlink()
        environment = {**os.environ, "npm_config_registry": registry, "npm_config_cache": str(tmp_path / "cache")}
        environment["npm_config_fetch_retries"] = "0"
        with pytest.raises(hook.BuildError, match="cannot reach its registry") as raised:
            hook.Frontend(project, environment).build()
    assert registry in str(raised.value)
    assert "npm_config_registry" in str(raised.value)


def test_install_scripts_of_packages_do_not_run(hook: ModuleType, project: Path) -> None:
    sources = project / "jupyter_extension/frontend"
    package = json.loads((sources / "package.json").read_text())
    package["scripts"]["postinstall"] = "node -e \"require('fs').writeFileSync('ran', '')\""
    (sources / "package.json").write_text(json.dumps(package))
    hook.Frontend(project).build()
    assert not (sources / "ran").exists()


def test_a_node_that_is_too_old_is_passed_over(hook: ModuleType, project: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name, says in {"node": "v12.22.0", "npm": "6.14.0"}.items():
        (old / name).write_text(f"#!/bin/sh\necho {says}\n")
        (old / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{old}{os.pathsep}{os.environ['PATH']}"}
    found = hook.Frontend(project, environment).find_node()
    assert found is not None
    assert found != old


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_node_is_a_build_requirement_only_where_it_is_needed(
    hook: ModuleType, project: Path, without_node: dict[str, str], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def requirements() -> list[str]:
        made = hook.FrontendBuildHook(str(project), {}, None, None, str(project / "dist"), target)
        asked: list[str] = made.dependencies()
        return asked

    with_node = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"
    monkeypatch.setenv("PATH", with_node)
    assert requirements() == []
    monkeypatch.setenv("PATH", without_node["PATH"])
    assert requirements() == [hook.NODE_REQUIREMENT]
    monkeypatch.setenv("PATH", with_node)
    hook.Frontend(project).build()
    monkeypatch.setenv("PATH", without_node["PATH"])
    assert requirements() == []
