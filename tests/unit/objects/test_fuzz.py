"""Damaged objects are refused or decoded, but never take the process down, and never raise anything of another kind.

`P2PNB_FUZZ_SECONDS` asks for more than the default, `P2PNB_FUZZ_SEED` for another sequence.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("P2PNB_FUZZ_SECONDS", "12"))
SEED = int(os.environ.get("P2PNB_FUZZ_SEED", "1"))


def run(seed: int, seconds: float, trace: Path, *more: str) -> subprocess.CompletedProcess[str]:
    child = [sys.executable, str(Path(__file__).with_name("fuzz_child.py")), str(seed), str(seconds), str(trace), *more]
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(child, capture_output=True, text=True, timeout=seconds + 90, check=False, env=env)


@pytest.mark.timeout(SECONDS + 120)
def test_no_damage_ends_the_process(tmp_path):
    trace = tmp_path / "last mutant"
    done = run(SEED, SECONDS, trace)
    mutant = trace.read_bytes().hex() if trace.exists() else ""
    assert done.returncode == 0, f"{done.stderr[-4000:]}\nthe mutant: {mutant}"
    tried, accepted = map(int, done.stdout.split())
    assert tried > 50 * SECONDS
    assert 0 < accepted < tried


def test_the_same_damage_without_validation_ends_the_process(tmp_path):
    assert run(1, 40.0, tmp_path / "last mutant", "without-validation").returncode < 0  # a signal
