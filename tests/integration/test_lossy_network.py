"""UDP taken away under a direct path, in a network namespace: down to the relay, and up again (F5, F29)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]


def _why_not() -> str:
    if os.geteuid() != 0:
        return "a network namespace needs root"
    missing = [tool for tool in ("unshare", "ip", "nft") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing"
    probe = "ip link set lo up && nft add table inet t"
    tried = subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True, text=True, check=False)
    return f"no network namespace here: {tried.stderr.strip()}" if tried.returncode else ""


def test_blocked_udp_falls_back_to_the_relay_and_climbs_again() -> None:
    if reason := _why_not():
        pytest.skip(f"NOT TESTED: UDP dropped under a direct path ({reason})")
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "jupyter_extension")])}
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.integration.lossy_network"],
        cwd=root, env=env, capture_output=True, text=True, timeout=160, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["equal"]
    assert set(facts["paths"]) == {"relay", "webrtc"}
    assert facts["chat_s"] < 4, "1.5 s of doubt and its ping"
    assert facts["fallback_s"] < 10
    assert facts["blocked_transfer_s"] < 6, "newcomers to a network without UDP don't wait long for a direct path"
