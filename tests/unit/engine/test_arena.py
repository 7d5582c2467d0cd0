"""Memory of received objects: used again only after the last view of it died, wherever that was."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from p2pnb.engine import arena as arena_module
from p2pnb.engine.arena import KEEP_S, LEAST_BYTES, SPARE, Arena

SIZE = 2 * LEAST_BYTES


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, SIZE])
def test_memory_is_writable_and_of_the_size_asked_for(size: int) -> None:
    view = Arena().take(size)
    assert (len(view), view.readonly, view.format, view.itemsize) == (size, False, "B", 1)
    if size:
        view[0], view[-1] = 1, 2
        assert address(view) % 4096 == 0


def test_memory_comes_back_and_is_used_again() -> None:
    arena = Arena()
    view = arena.take(SIZE)
    place = address(view)
    assert arena.idle_bytes == 0
    del view
    assert arena.idle_bytes == SIZE
    again = arena.take(SIZE - 100)
    assert address(again) == place
    assert len(again) == SIZE - 100
    assert arena.idle_bytes == 0


@pytest.mark.parametrize("keeper", ["slice", "array", "view of an array", "arrow buffer", "arrow slice", "cast"])
def test_memory_is_not_used_again_while_anything_looks_at_it(keeper: str) -> None:
    arena = Arena()
    view = arena.take(SIZE)
    view[:8] = b"mine" * 2
    keep: Any
    match keeper:
        case "slice":
            keep = view[4:8]
        case "array":
            keep = np.frombuffer(view, dtype=np.int32)
        case "view of an array":
            keep = np.frombuffer(view, dtype=np.int32)[1:2].view(np.uint8)
        case "arrow buffer":
            keep = pa.py_buffer(view)
        case "arrow slice":
            keep = pa.py_buffer(view).slice(4, 4)
        case _:
            keep = view.cast("i")[1:2]
    del view
    gc.collect()
    assert arena.idle_bytes == 0
    other = arena.take(SIZE)
    other[:8] = bytes(8)
    assert b"mine" in bytes(memoryview(keep).cast("B")[:8])
    del keep
    gc.collect()
    assert arena.idle_bytes == SIZE


def test_last_view_may_die_on_any_thread() -> None:
    arena = Arena()
    hands = [[arena.take(SIZE)] for _ in range(8)]

    def drop(hand: list[memoryview]) -> None:
        hand.clear()

    threads = [threading.Thread(target=drop, args=(hand,)) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arena.idle_bytes == 8 * SIZE


def test_many_threads_take_and_drop_at_once_and_never_share() -> None:
    arena, wrong = Arena(), []

    def work(number: int) -> None:
        for turn in range(40):
            view = arena.take(LEAST_BYTES + 4096 * (turn % 3))
            mark = number.to_bytes(2, "big") + turn.to_bytes(2, "big")
            view[:4], view[-4:] = mark, mark
            threading.Event().wait(0.0005)
            if bytes(view[:4]) != mark or bytes(view[-4:]) != mark:
                wrong.append(mark)
            del view

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_much_larger_memory_does_not_serve_a_small_object() -> None:
    arena = Arena()
    del (view := [arena.take(4 * SIZE)])[0]
    small = arena.take(SIZE)
    assert arena.idle_bytes == 4 * SIZE
    assert len(small) == SIZE and not view
    del (fitting := [arena.take(int(SIZE * SPARE))])[0]
    place = arena.take(SIZE)
    assert arena.idle_bytes == 4 * SIZE, "a little larger is fine"
    assert len(place) == SIZE and not fitting


def test_what_nobody_needs_is_freed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    arena, now = Arena(), 100.0
    monkeypatch.setattr("p2pnb.engine.arena.time.monotonic", lambda: now)
    del (views := [arena.take(SIZE)])[0]
    now += KEEP_S - 1
    arena.trim()
    assert arena.idle_bytes == SIZE
    now += 2
    arena.trim()
    assert arena.idle_bytes == 0 and not views


def test_kept_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "KEEP_BYTES", 3 * SIZE)
    arena = Arena()
    views = [arena.take(SIZE) for _ in range(6)]
    views.clear()
    assert arena.idle_bytes == 3 * SIZE


def test_closed_arena_keeps_nothing_and_values_live_on() -> None:
    arena = Arena()
    view = arena.take(SIZE)
    del (gone := [arena.take(SIZE)])[0]
    view[:4] = b"mine"
    arena.close()
    assert arena.idle_bytes == 0 and not gone
    assert bytes(view[:4]) == b"mine"
    del view
    assert arena.idle_bytes == 0


def test_absurd_sizes_are_an_error_and_take_nothing() -> None:
    arena = Arena()
    for size in (-1, 1 << 62, 1 << 70):
        with pytest.raises((OSError, ValueError, OverflowError)):
            arena.take(size)
    assert arena.idle_bytes == 0
