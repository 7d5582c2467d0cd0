"""The turn of bulk: all paths of a room share it, and everything else is never kept waiting for longer."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from p2pnb.engine import bulk
from p2pnb.engine.bulk import TURN_S, Turn

pytestmark = pytest.mark.asyncio


async def test_turn_ends_by_time_and_begins_anew_with_the_next_run_of_the_loop() -> None:
    turn = Turn(asyncio.get_running_loop())
    began = time.monotonic()
    while not turn.is_over():
        pass
    assert TURN_S <= time.monotonic() - began < 10 * TURN_S
    assert turn.is_over(), "also for the next path of this run"
    await asyncio.sleep(0)
    assert not turn.is_over()


async def test_what_waits_meanwhile_comes_between_two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that always have room keep the loop no longer than one turn."""
    monkeypatch.setattr(bulk, "TURN_S", 0.005)
    loop = asyncio.get_running_loop()
    turn, late, turns = Turn(loop), list[float](), [0] * 8

    def fill(path: int) -> None:
        while not turn.is_over():
            turns[path] += 1
        turn.wait(partial(fill, path))

    for path in range(8):
        loop.call_soon(fill, path)
    for _ in range(40):
        due = loop.time() + 0.001
        await asyncio.sleep(0.001)
        late.append(loop.time() - due)
    assert sorted(late)[len(late) // 2] < 0.02, "half of the time at least, however busy the machine is"
    assert all(turns), "nobody is left out"
