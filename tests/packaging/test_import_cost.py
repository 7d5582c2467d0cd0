"""`import p2pnb` is cheap: it is paid in every notebook, by people who may not even open a room."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {"aiohttp", "aiortc", "anywidget", "asyncio", "av", "cryptography", "ipywidgets", "msgspec", "numpy"}
HEAVY |= {"pandas", "polars", "pyarrow", "qrcode", "tornado"}
BUDGET = 0.120
ROUNDS = 9


def _python(code: str, root: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'jupyter_extension'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def _seconds(code: str, root: Path) -> float:
    started = time.perf_counter()
    _python(code, root)
    return time.perf_counter() - started


def test_importing_p2pnb_costs_at_most_120_ms_over_bare_python(root: Path) -> None:
    _python("import p2pnb", root)  # compiled files are written once
    pairs = [(_seconds("pass", root), _seconds("import p2pnb", root)) for _ in range(ROUNDS)]
    cost = statistics.median(loaded for _, loaded in pairs) - statistics.median(bare for bare, _ in pairs)
    assert cost <= BUDGET, f"import p2pnb costs {cost * 1000:.0f} ms over bare Python"


@pytest.mark.parametrize("module", ["p2pnb", "p2pnb.errors"])
def test_importing_loads_no_heavy_library(module: str, root: Path) -> None:
    loaded = json.loads(_python(f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))", root))
    assert module in loaded
    assert HEAVY.isdisjoint(loaded), f"import {module} loads {sorted(HEAVY.intersection(loaded))}"


def test_the_server_extension_loads_nothing_that_only_peers_need(root: Path) -> None:
    loaded = json.loads(_python("import p2pnb_server, json, sys; print(json.dumps(sorted(sys.modules)))", root))
    assert "p2pnb_server" in loaded
    peers_only = {"aiortc", "av", "cryptography", "ipywidgets", "numpy", "pandas", "polars", "pyarrow"}
    assert peers_only.isdisjoint(loaded), f"import p2pnb_server loads {sorted(peers_only.intersection(loaded))}"
