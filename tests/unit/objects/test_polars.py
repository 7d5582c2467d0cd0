"""polars frames and series arrive with their very types."""

from __future__ import annotations

import datetime as dt
import decimal

import polars as pl
import pytest

from p2pnb.errors import NotSupportedError
from p2pnb.objects import encode

ALL = pl.DataFrame(
    {
        "text": ["a", None],
        "long text": ["x" * 50, "y" * 5000],
        "bytes": [b"x", None],
        "categorical": pl.Series(["q", "r"], dtype=pl.Categorical),
        "enum": pl.Series(["q", None], dtype=pl.Enum(["r", "q", "z"])),
        "duration": pl.Series([dt.timedelta(1), None]),
        "duration in ms": pl.Series([dt.timedelta(1), None], dtype=pl.Duration("ms")),
        "time": [dt.time(1), None],
        "decimal": pl.Series([decimal.Decimal("1.5"), None], dtype=pl.Decimal(20, 3)),
        "int128": pl.Series([2**100, -2], dtype=pl.Int128),
        "uint128": pl.Series([2**127, None], dtype=pl.UInt128),
        "float16": pl.Series([1, 2], dtype=pl.Float16),
        "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        "array of arrays": pl.Series([[[1], [2]], [[3], [4]]], dtype=pl.Array(pl.Int8, (2, 1))),
        "list": [[1], [2, 3]],
        "struct": [{"a": 1, "b": [{"c": "x"}]}, {"a": 2, "b": []}],
        "null": [None, None],
        "berlin": pl.Series([dt.datetime(2020, 1, 1)] * 2).dt.replace_time_zone("Europe/Berlin"),  # noqa: DTZ001
        "ms": pl.Series([dt.datetime(2020, 1, 1)] * 2).cast(pl.Datetime("ms")),  # noqa: DTZ001
        "date": [dt.date(2020, 1, 1)] * 2,
        "list of categories": pl.Series([["a"], ["b"]], dtype=pl.List(pl.Categorical)),
        "struct of enums": pl.Series([{"e": "a"}, {"e": "b"}], dtype=pl.Struct({"e": pl.Enum(["b", "a"])})),
        "booleans": [True, None],
        **{f"u{n}": pl.Series([1, None], dtype=getattr(pl, f"UInt{n}")) for n in (8, 16, 32, 64)},
        **{f"i{n}": pl.Series([1, None], dtype=getattr(pl, f"Int{n}")) for n in (8, 16, 32, 64)},
        "f32": pl.Series([float("nan"), None], dtype=pl.Float32),
    }
)
FRAMES = {
    "all types": ALL,
    "nothing": pl.DataFrame(),
    "no rows": ALL.clear(),
    "slice": ALL.slice(1),
    "several chunks": pl.concat([ALL, ALL], rechunk=False),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_comes_back_equal(name, travel):
    sent = FRAMES[name]
    got = travel(sent)
    assert isinstance(got, pl.DataFrame)
    assert got.schema == sent.schema
    assert got.equals(sent)


@pytest.mark.parametrize("column", ALL.columns)
def test_series_comes_back_equal(column, travel):
    got = travel(ALL[column])
    assert isinstance(got, pl.Series)
    assert (got.name, got.dtype) == (column, ALL[column].dtype)
    assert got.equals(ALL[column], check_dtypes=True)


def test_lazy_frame_is_refused_with_advice():
    with pytest.raises(NotSupportedError, match="collect"):
        encode(pl.LazyFrame({"a": [1]}))


def test_objects_are_refused_by_column():
    with pytest.raises(NotSupportedError, match="column 'o'"):
        encode(pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}))
