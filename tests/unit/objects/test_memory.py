"""Tables are neither copied nor scanned on their way, and what arrives lets go of its memory when it is dropped."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from p2pnb.objects import codec, decode, encode, layout
from p2pnb.objects.codec import JOINED_PIECE_BYTES, Encoded

ROWS = 250_000


class Arena(bytearray):
    """Memory that can be watched: plain bytearrays take no weak references."""


def land(encoded: Encoded) -> tuple[Arena, memoryview]:
    arena = Arena(encoded.content_bytes)
    position = 0
    for chunk in encoded.chunks():
        arena[position : position + len(chunk)] = chunk
        position += len(chunk)
    return arena, memoryview(arena)


def allocated(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what `work` returns and the most bytes that Python, numpy and Arrow held for it at once."""
    pool = pa.default_memory_pool()
    gc.collect()
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        result = work()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return result, peak + max(0, pool.bytes_allocated() - before)


def numbers(columns: int, rows: int, **how: Any) -> pd.DataFrame:
    parts = {f"c{n}": np.arange(rows) if n % 2 else np.arange(rows) / 7 for n in range(columns)}
    return pd.DataFrame(parts, **how)


def beside_a_block() -> pd.DataFrame:
    frame = pd.DataFrame(np.arange(4.0 * ROWS).reshape(ROWS, 4), copy=False)  # row by row in memory
    frame["key"] = np.arange(ROWS)
    return frame


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "two blocks": lambda: numbers(8, ROWS),
    "a block per column": lambda: numbers(8, ROWS, copy=False),
    "one type, a block per column": lambda: pd.DataFrame({n: np.arange(1.0 * ROWS) for n in range(8)}, copy=False),
    "one block": lambda: pd.DataFrame(np.arange(8.0 * ROWS).reshape(8, ROWS).T, copy=False),
    "one block row by row": lambda: pd.DataFrame(np.arange(8.0 * ROWS).reshape(ROWS, 8), copy=False),
    "a block row by row, and a column": beside_a_block,
    "wide": lambda: numbers(400, 10_000),
    "wide, a block per column": lambda: numbers(400, 10_000, copy=False),
    "times": lambda: pd.DataFrame({n: pd.date_range("2020", periods=ROWS, freq="s").to_numpy() for n in "ab"}),
    "zoned times": lambda: pd.DataFrame({"a": pd.date_range("2020", periods=ROWS, freq="s", tz="Europe/Berlin")}),
    "text": lambda: pd.DataFrame({"a": pd.array([f"text number {n}" for n in range(ROWS)], dtype="str")}),
    "categories": lambda: pd.DataFrame({"a": pd.Categorical.from_codes(np.arange(ROWS) % 300, list(range(300)))}),
    "integers with gaps": lambda: pd.DataFrame({"a": pd.array([None, *range(ROWS)], dtype="Int64")}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_is_not_copied_on_either_side(name):
    frame = FRAMES[name]()
    size_bytes = encode(frame).content_bytes
    bound = size_bytes // 3 + (2 * ROWS if name == "integers with gaps" else 0)  # bits on the way, bytes in pandas
    assert 300_000 < bound < size_bytes // 2 or name in ("categories", "integers with gaps")
    encoded, taken = allocated(lambda: encode(frame))
    assert taken < bound
    _, content = land(encoded)
    got, taken = allocated(lambda: decode(encoded.codec, encoded.head, content))
    assert taken < bound
    pd.testing.assert_frame_equal(got, frame)


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in ("text", "categories")])
def test_received_columns_lie_writable_on_the_received_memory(name):
    encoded = encode(FRAMES[name]())
    arena, content = land(encoded)
    got: Any = decode(encoded.codec, encoded.head, content)
    raw = np.frombuffer(arena, "u1")
    for place in range(0, got.shape[1], 3):
        array = got.iloc[:, place].array
        column = array.asi8 if hasattr(array, "asi8") else array.__array__() if array.dtype != "Int64" else array._data
        assert np.shares_memory(column, raw)
    before = bytes(raw)
    got.iloc[1, 0] = got.iloc[2, 0]
    assert bytes(raw) != before  # written where it lies: no copy for that either


def test_wide_frame_arrives_in_one_block_per_type():
    encoded = encode(numbers(400, 1_000, copy=False))
    _, content = land(encoded)
    got: Any = decode(encoded.codec, encoded.head, content)
    assert list(got.columns) == [f"c{n}" for n in range(400)]
    assert len(encode(got).buffers) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got["more"] = 1  # pandas complains here of frames made of many blocks


@pytest.mark.parametrize(
    "make",
    [
        lambda: pa.table({"a": np.arange(ROWS), "b": np.arange(ROWS) / 3}),
        lambda: pa.table({"a": [f"text number {n}" for n in range(ROWS)]}),
        lambda: pa.table({"a": pa.array([None, *range(ROWS)])}),
        lambda: pa.chunked_array([np.arange(5_000)] * 200),
        lambda: np.arange(ROWS),
        lambda: {"x": [np.arange(ROWS)], "y": bytes(10)},
    ],
    ids=["numbers", "text", "gaps", "chunks", "array", "inside a dictionary"],
)
def test_arrow_and_arrays_are_not_copied_on_either_side(make):
    value = make()
    encode(value)
    encoded, taken = allocated(lambda: encode(value))
    assert encoded.content_bytes > 1_500_000
    joined = sum(len(piece) for piece in encoded.buffers if len(piece) <= JOINED_PIECE_BYTES)
    assert taken < 300_000 + 2 * joined
    _, content = land(encoded)
    decode(encoded.codec, encoded.head, content)
    _, taken = allocated(lambda: decode(encoded.codec, encoded.head, content))
    assert taken < 300_000


VALUES: dict[str, Callable[[], Any]] = {
    **FRAMES,
    "series": lambda: pd.Series(np.arange(ROWS)),
    "frame of objects": lambda: pd.DataFrame({"a": pd.Series(["x", 1, None] * 50_000, dtype=object)}),
    "table": lambda: pa.table({"a": np.arange(ROWS), "s": ["x"] * ROWS}),
    "polars": lambda: pl.DataFrame({"a": np.arange(ROWS), "s": ["a text longer than a view"] * ROWS}),
    "array": lambda: np.arange(ROWS),
    "masked array": lambda: np.ma.array(np.arange(ROWS), mask=np.arange(ROWS) % 2 == 0),
    "view": lambda: memoryview(bytes(1_000_000)),
    "dictionary": lambda: {"a": np.arange(ROWS), "f": pd.DataFrame({"x": np.arange(ROWS)})},
}


@pytest.mark.parametrize("name", VALUES)
def test_dropping_the_value_frees_the_received_memory(name):
    encoded = encode(VALUES[name]())
    arena, content = land(encoded)
    alive = weakref.ref(arena)
    layout(encoded.codec, encoded.head, len(content))
    value = decode(encoded.codec, encoded.head, content)
    del arena, content
    gc.collect()
    assert alive() is not None or name == "frame of objects"
    del value
    gc.collect()
    assert alive() is None


def test_small_parts_do_not_keep_a_large_content_alive():
    encoded = encode({"small": np.arange(10), "text": "x", "large": np.arange(ROWS)})
    arena, content = land(encoded)
    alive = weakref.ref(arena)
    value: Any = decode(encoded.codec, encoded.head, content)
    kept = value["small"], value["text"]
    del arena, content, value
    gc.collect()
    assert alive() is None
    assert kept[0].tolist() == list(range(10))


# ── pieces ──────────────────────────────────────────────────────────────────────────────────────────
def seams(encoded: Encoded) -> int:
    return len(list(encoded.chunks())) - 1


def test_many_small_buffers_are_one_piece():
    value = [np.arange(n % 900 + 1) for n in range(5_000)]
    encoded = encode(value)
    assert seams(encoded) <= 1  # behind the description of so many
    assert isinstance(encoded.read(encoded.content_bytes // 3, 512 * 1024), memoryview)


def test_a_large_buffer_stays_where_it_is_between_small_ones():
    large = np.arange(ROWS)
    encoded = encode([*[np.arange(100)] * 50, large, *[np.arange(100)] * 50])
    assert seams(encoded) == 2
    assert any(np.shares_memory(np.frombuffer(piece, "u1"), large) for piece in encoded.chunks())


def test_columns_of_an_array_have_no_seams():
    encoded = encode(numbers(8, ROWS))
    views = [isinstance(encoded.read(at, 512 * 1024), memoryview) for at in range(0, encoded.content_bytes, 512 * 1024)]
    assert views.count(False) <= 1


def test_joining_is_bounded(monkeypatch):
    monkeypatch.setattr(codec, "MAX_JOINED_BYTES", 100_000)
    value = [np.full(5_000, n, "u1") for n in range(100)]
    encoded = encode(value)
    shared = [
        piece for piece in encoded.chunks() if any(np.shares_memory(np.frombuffer(piece, "u1"), a) for a in value)
    ]
    assert len(shared) >= 75
    assert b"".join(encoded.chunks()) == bytes(encoded.read(0, encoded.content_bytes))
    for got, sent in zip(decode(encoded.codec, encoded.head, land(encoded)[1]), value, strict=True):  # type: ignore[call-overload]
        assert np.array_equal(got, sent)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (2_000_000, 600_000), (4_000_000, 1), (3_999_000, 9_999_999)])
def test_content_is_read_into_a_buffer(offset, length):
    encoded = encode([np.arange(ROWS), np.arange(ROWS)])
    whole = b"".join(encoded.chunks())
    buffer = bytearray(b"\xee" * length)
    count = encoded.read_into(offset, memoryview(buffer))
    assert count == len(whole[offset : offset + length])
    assert buffer == whole[offset : offset + length] + b"\xee" * (length - count)
