"""What the packages promise to export is there, and every public module says what it exports."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"p2pnb": ROOT, "p2pnb_server": ROOT / "jupyter_extension"}


def _says_only_what_it_is(path: Path) -> bool:
    """Whether a module is a docstring and nothing else, as some packages' __init__.py."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text("utf-8")).body)


def _public_modules() -> list[str]:
    names = []
    for package, base in PACKAGES.items():
        for path in sorted((base / package).rglob("*.py")):
            parts = list(path.relative_to(base).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            if not any(part.startswith("_") for part in parts) and not _says_only_what_it_is(path):
                names.append(".".join(parts))
    return names


@pytest.mark.parametrize("name", _public_modules())
def test_every_public_module_exports_just_what_it_declares(name: str) -> None:
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    exported = list(module.__all__)
    assert len(exported) == len(set(exported))
    missing = [item for item in exported if getattr(module, item, None) is None]
    assert not missing, f"{name}.__all__ names what is not there: {missing}"


@pytest.mark.parametrize("name", ["Room", "create", "join"])
def test_the_names_people_start_with_are_exported(name: str) -> None:
    package = importlib.import_module("p2pnb")
    assert name in package.__all__
    assert name in dir(package)


def test_the_package_names_its_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    try:
        installed = importlib.metadata.version("p2pnb")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("p2pnb runs from the checkout here; it is not installed")
    assert importlib.import_module("p2pnb").__version__ == installed == declared


def test_every_module_states_its_purpose() -> None:
    silent = []
    for package, base in PACKAGES.items():
        for path in (base / package).rglob("*.py"):
            if not ast.get_docstring(ast.parse(path.read_text("utf-8"))):
                silent.append(str(path.relative_to(ROOT)))
    assert not silent, f"modules without a docstring: {silent}"
