"""A preview tells enough, is small, and never fails or takes long."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from p2pnb.objects import encode
from p2pnb.objects.preview import MAX_PREVIEW_BYTES, human_bytes
from p2pnb.protocol.wire import MAX_PREVIEW_CELL_CHARS, MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS


@pytest.mark.parametrize(
    ("value", "kind", "summary"),
    [
        (pd.DataFrame({"a": range(1500), "b": "x"}), "pandas.DataFrame", "1,500 rows × 2 columns"),
        (pd.Series([1.5], name="n"), "pandas.Series", "1 row × 1 column"),
        (pd.RangeIndex(3), "pandas.RangeIndex", "3 rows × 1 column"),
        (pd.MultiIndex.from_product([[1], [2]]), "pandas.MultiIndex", "1 row × 1 column"),
        (pl.DataFrame({"a": [1, 2]}), "polars.DataFrame", "2 rows × 1 column"),
        (pl.Series("a", [1]), "polars.Series", "1 row × 1 column"),
        (pa.table({"a": [1, 2]}), "pyarrow.Table", "2 rows × 1 column"),
        (pa.array([1]), "pyarrow.Array", "1 row × 1 column"),
        (np.zeros((1000, 3)), "numpy.ndarray", "1,000 × 3 of float64, 24 kB"),
        (np.float64(1.5), "numpy.float64", "float64 1.5"),
        ([1, 2], "list", "2 items"),
        ({"a": 1}, "dict", "1 item"),
        ("hello", "str", "5 characters"),
        (b"abc", "bytes", "3 bytes"),
        (42, "int", "42"),
        (None, "NoneType", "None"),
        (pd.Timestamp("2020"), "pandas.Timestamp", "2020-01-01 00:00:00"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_summary_says_what_it_is(value, kind, summary):
    encoded = encode(value)
    assert encoded.type == encoded.preview.type == kind
    assert encoded.preview.summary == summary


def test_table_shows_columns_and_first_rows():
    preview = encode(pd.DataFrame({"a": range(100), "b": ["x" * 500] * 100, 3: [[1, {"k": None}]] * 100})).preview
    assert [(column.name, column.type) for column in preview.columns] == [("a", "int64"), ("b", "str"), ("3", "object")]
    assert len(preview.rows) == MAX_PREVIEW_ROWS
    assert preview.rows[1][0] == "1"
    assert preview.rows[0][1] == "x" * (MAX_PREVIEW_CELL_CHARS - 1) + "…"
    assert preview.rows[0][2] == "[1, {'k': None}]"


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({f"🙂{'x' * 200}{n}": ["🙂" * 500] * 20 for n in range(200)}),
        pl.DataFrame({f"🙂{'x' * 200}{n}": ["🙂" * 500] * 20 for n in range(200)}),
        pa.table({f"🙂{'x' * 200}{n}": ["🙂" * 500] * 20 for n in range(200)}),
        ["🙂" * 1000] * 1000,
        "🙂" * 100_000,
        np.full((100, 100), "🙂" * 90),
        {"k" * 5000: {"k" * 5000: ["v" * 5000] * 100}},
        10**3000,
    ],
    ids=lambda value: type(value).__module__ + type(value).__name__,
)
def test_preview_keeps_the_limits(value):
    preview = encode(value).preview
    assert len(msgspec.msgpack.encode(preview)) <= MAX_PREVIEW_BYTES
    assert len(preview.columns) <= MAX_PREVIEW_COLUMNS
    assert len(preview.rows) <= MAX_PREVIEW_ROWS
    assert all(len(text) <= MAX_PREVIEW_CELL_CHARS for row in preview.rows for text in row)
    assert preview.summary


def test_text_that_utf8_lacks_does_not_break_the_preview():
    for value in ("\ud800" * 10, ["\ud800"], pd.DataFrame({"a": pd.Series(["\ud800"], dtype=object)})):
        msgspec.msgpack.encode(encode(value).preview)


def test_number_too_long_to_print_is_previewed():
    assert encode(10**10_000).preview.summary


@pytest.mark.timeout(20)
def test_preview_of_ten_million_rows_is_quick():
    frame = pd.DataFrame({"a": np.arange(10_000_000), "b": np.random.default_rng(1).random(10_000_000)})
    encode(frame)
    start = time.perf_counter()
    encode(frame)
    assert time.perf_counter() - start < 1.0  # 5 ms here


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_999, "1 MB"),
        (3 * 10**15, "3 PB"),
    ],
)
def test_sizes_read_well(size_bytes, text):
    assert human_bytes(size_bytes) == text
