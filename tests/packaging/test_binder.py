"""The Binder set-up works in a fresh environment: its own script is run, then the notebook that visitors see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Run

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image(
    export: Callable[[Path], Path],
    run: Run,
    new_venv: Callable[[str], Path],
    path_without_node: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """A checkout after `binder/postBuild`, and the PATH of its environment."""
    checkout = export(tmp_path_factory.mktemp("binder") / "jovyan")
    path = f"{new_venv('binder-venv') / 'bin'}:{path_without_node}"
    run("bash", "binder/postBuild", cwd=checkout, path=path)
    return checkout, path


def test_the_extension_is_enabled_and_loads(image: tuple[Path, str], run: Run) -> None:
    checkout, path = image
    listed = run("jupyter", "server", "extension", "list", cwd=checkout, path=path)
    assert "p2pnb_server enabled" in listed
    assert [line for line in listed.splitlines() if "p2pnb_server" in line and line.rstrip().endswith("OK")], listed


def test_a_kernel_started_in_the_notebook_folder_gets_package_and_panel(image: tuple[Path, str], run: Run) -> None:
    checkout, path = image
    code = "import p2pnb; from p2pnb.panel import Panel; assert Panel._esm; print(p2pnb.__file__)"
    assert "site-packages" in run("python", "-c", code, cwd=checkout / "notebooks", path=path)


def test_the_image_keeps_no_build_tools(image: tuple[Path, str]) -> None:
    checkout, _ = image
    assert not (checkout / "jupyter_extension/frontend/node_modules").exists()


def test_the_notebooks_run_from_top_to_bottom_on_the_server_that_binder_starts(
    image: tuple[Path, str], run: Run, root: Path, tmp_path: Path
) -> None:
    checkout, path = image
    notebooks = sorted(checkout.glob("notebooks/binder*.ipynb"))
    if not notebooks:
        pytest.skip("there is no notebooks/binder*.ipynb")
    session = root / "tests/packaging/binder_session.py"
    names = [str(notebook.relative_to(checkout)) for notebook in notebooks]
    run("python", session, *names, cwd=checkout, path=path, JUPYTER_RUNTIME_DIR=str(tmp_path))
