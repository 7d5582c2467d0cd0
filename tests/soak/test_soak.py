"""Three minutes in which a fault comes every few seconds, and nothing is lost, late for good, doubled or left."""

from __future__ import annotations

import json
import os
from typing import Final

import pytest

from tests.soak.run import Settings, Soak

MINUTES: Final = float(os.environ.get("P2PNB_SOAK_MINUTES", "3"))
SEED: Final = int(os.environ.get("P2PNB_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 360)
def test_everything_arrives_once_in_order_and_equal_while_everything_breaks() -> None:
    summary = Soak(Settings(minutes=MINUTES, seed=SEED, fault_every_s=(5.0, 9.0), pace=3e6)).run()
    print(json.dumps(summary, indent=2))
    assert not summary["failures"], json.dumps(summary, indent=2)
    assert sum(summary["faults"].values()) >= MINUTES * 5
    assert len(summary["faults"]) == 8, "every kind of fault came"
    assert summary["bytes_moved"] >= MINUTES * 60 * 1e6
    assert summary["path_changes"] > 0
    assert summary["chat_p50_s"] < 1.0
