"""The bar that a transfer shows under its cell."""

from __future__ import annotations

import pytest

from p2pnb.panel import progress
from p2pnb.panel.progress import ProgressBar
from tests.unit.panel.fake_room import FakeTransfer


@pytest.fixture
def transfer() -> FakeTransfer:
    return FakeTransfer(name="data.csv", progress=0.25, rate=2_000_000.0)


def test_a_pause_is_shown_at_once_although_the_bar_was_told_a_moment_ago(transfer: FakeTransfer) -> None:
    bar = ProgressBar(transfer)  # type: ignore[arg-type]
    assert bar._bar.description == "data.csv · moving · 2.0 MB/s"
    transfer.pause()
    bar.update(transfer)  # type: ignore[arg-type]
    assert bar._bar.description == "data.csv · paused"
    assert bar._bar.bar_style == "info"
    transfer.resume()
    bar.update(transfer)  # type: ignore[arg-type]
    assert bar._bar.description == "data.csv · moving · 2.0 MB/s"
    assert bar._bar.bar_style == ""


def test_a_bar_that_moves_is_told_four_times_a_second(transfer: FakeTransfer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar = ProgressBar(transfer)  # type: ignore[arg-type]
    shown = set()
    for step in range(1000):
        now = 100.0 + step / 1000
        transfer.progress = step / 1000
        bar.update(transfer)  # type: ignore[arg-type]
        shown.add(bar._bar.value)
    assert 3 <= len(shown) <= 5


@pytest.mark.parametrize(("state", "style"), [("done", "success"), ("failed", "danger"), ("declined", "warning")])
def test_the_end_is_always_shown(transfer: FakeTransfer, state: str, style: str) -> None:
    bar = ProgressBar(transfer)  # type: ignore[arg-type]
    transfer.state, transfer.progress = state, 1.0
    bar.update(transfer)  # type: ignore[arg-type]
    assert bar._bar.bar_style == style
    assert bar._bar.value == 1.0
    assert state in bar._bar.description
