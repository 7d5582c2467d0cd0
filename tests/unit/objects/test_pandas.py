"""Frames, series and indexes arrive as what they were, to the last bit."""

from __future__ import annotations

import datetime as dt
import decimal
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects import decode, encode

MASKED = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"]
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def with_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    frame.attrs = {"source": ["a", {"b": 2.5}], 3: dt.date(2024, 1, 1)}
    return frame


pandas: Any = pd  # its stubs know fewer constructors than it has
FRAMES: dict[str, pd.DataFrame] = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": [True, False], "d": np.array([1, 2], "u1")}),
    "every numpy width": pd.DataFrame(
        {code: np.array([0, 1, 2]).astype(code) for code in np.typecodes["AllInteger"] + "efd"}
    ),
    "complex and long double": pd.DataFrame({"z": [1j, 2], "g": np.array([1, 2], "longdouble")}),
    "NaN payloads": pd.DataFrame({"a": np.array([0x7FF8000000000001, 0xFFF8000000000000]).astype("u8").view("f8")}),
    "big-endian": pd.DataFrame({"a": np.array([1, 2], ">i4"), "b": np.array([1, 2], ">f8")}),
    "text": pd.DataFrame({"a": ["x", None, "ü🙂"]}),
    "text of python": pd.DataFrame({"a": pandas.array(["x", None], dtype=pd.StringDtype("python"))}),
    "text of python with nan": pd.DataFrame(
        {"a": pandas.array(["x", None], dtype=pd.StringDtype("python", na_value=np.nan))}
    ),
    "text of pyarrow": pd.DataFrame({"a": pandas.array(["x", None], dtype="string[pyarrow]")}),
    "masked": pd.DataFrame({kind: pandas.array([1, None, 3], dtype=kind) for kind in MASKED}),
    "masked booleans": pd.DataFrame({"a": pandas.array([True, None, False], dtype="boolean")}),
    "times": pd.DataFrame(
        {
            "ns": np.array(["2020-01-01", "NaT"], "M8[ns]"),
            "s": np.array(["2020-01-01", "NaT"], "M8[s]"),
            "ms": np.array(["0001-01-01", "NaT"], "M8[ms]"),
            "delta": pandas.to_timedelta(["1D", None]),
            "berlin": pandas.to_datetime(["2020-07-01", None]).tz_localize("Europe/Berlin"),
            "seconds in berlin": pandas.to_datetime(["2020-07-01", None]).tz_localize(BERLIN).as_unit("s"),
            "utc": pandas.to_datetime(["2020-07-01", None], utc=True),
            "fixed": pandas.to_datetime(["2020-07-01", None]).tz_localize(dt.timezone(dt.timedelta(hours=2))),
        }
    ),
    "hour that comes twice": pd.DataFrame(
        {"a": pd.date_range("2024-10-27", periods=5, freq="h", tz="UTC").tz_convert(BERLIN)}
    ),
    "categories": pd.DataFrame(
        {
            "ordered": pd.Categorical(["x", None, "y"], categories=["y", "x", "unused"], ordered=True),
            "of numbers": pd.Categorical([1, 2, 1]),
            "cut": pd.cut([1, 2, 3], 2),
            "of times": pd.Categorical(pandas.to_datetime(["2020", "2021", "2020"]).tz_localize(BERLIN)),
            "none": pd.Categorical([None, None, None]),
        }
    ),
    "many categories": pd.DataFrame({"a": pd.Categorical([f"c{n}" for n in range(2000)])}),
    "periods": pd.DataFrame(
        {
            "month": pd.period_range("2020-01", periods=3, freq="M"),
            "quarter": pd.PeriodIndex(["2020Q1", None, "2021Q1"], freq="Q-DEC"),
            "two days": pd.period_range("2020-01", periods=3, freq="2D"),
        }
    ),
    "intervals": pd.DataFrame(
        {
            "float": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3.5]),
            "time": pd.interval_range(pd.Timestamp("2020"), periods=3).array,
            "zone": pd.interval_range(pd.Timestamp("2020", tz="Europe/Berlin"), periods=3, closed="both").array,
        }
    ),
    "sparse": pd.DataFrame(
        {
            "int": pd.arrays.SparseArray([0, 0, 1]),
            "float": pd.arrays.SparseArray([np.nan, 1.5, np.nan]),
            "block": pd.arrays.SparseArray([False, True, True], kind="block"),
        }
    ),
    "objects": pd.DataFrame(
        {
            "text": pd.Series(["a", None, "b"], dtype=object),
            "bytes": [b"x", None, b"y"],
            "dates": [dt.date(2020, 1, 1), None, dt.date(1, 1, 1)],
            "decimals": [decimal.Decimal("1.50"), None, decimal.Decimal("1E+5")],
            "mixed": [1, "a", None],
            "lists": [[1], [2, 3], {"a": [b"q"]}],
            "equal lists": [[1, 2], [3, 4], [5, 6]],
            "missing": pd.Series([np.nan, None, pd.NA], dtype=object),
            "none": pd.Series([None] * 3, dtype=object),
            "surrogates": pd.Series(["\ud800", "b", None], dtype=object),
            "stamps": pd.Series([pd.Timestamp("2020", tz="UTC"), pd.NaT, pd.Timedelta("1h")], dtype=object),
        }
    ),
    "arrow": pd.DataFrame(
        {
            "list": pandas.array([[1], [2, 3], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            "struct": pandas.array([{"a": 1}, None, {"a": 2}], dtype=pd.ArrowDtype(pa.struct({"a": pa.int64()}))),
            "map": pandas.array([[("a", 1)], [], None], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.int8()))),
            "decimal": pandas.array([decimal.Decimal("1.5"), None, None], dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
            "string": pandas.array(["a", None, "b"], dtype=pd.ArrowDtype(pa.string())),
            "dictionary": pandas.array(["a", None, "b"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
        }
    ),
    "multi-index": pd.DataFrame(
        np.arange(8.0).reshape(4, 2),
        index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None]),
        columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["p", "q"]),
    ),
    "multi-index of times": pd.DataFrame(
        {"v": [1, 2]},
        index=pd.MultiIndex.from_arrays(
            [pandas.to_datetime(["2020", "2021"]).tz_localize("Asia/Tokyo"), pd.Categorical(["a", None])]
        ),
    ),
    "unused levels": pd.DataFrame({"v": range(6)}, index=pd.MultiIndex.from_product([["a", "b", "c"], [1, 2]])).iloc[
        :2
    ],
    "named index": pd.DataFrame({"a": [1]}, index=pd.Index(["r"], name="idx")),
    "tuple names": pd.DataFrame({"a": [1]}, index=pd.Index([5], name=("x", 1))),
    "range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(10, 2, -4, name="r")),
    "weekly": pd.DataFrame({"a": range(3)}, index=pd.date_range("2020", periods=3, freq="2W-MON", name="t")),
    "hourly": pd.DataFrame({"a": range(3)}, index=pd.timedelta_range("1D", periods=3, freq="h")),
    "quarters": pd.DataFrame({"a": range(3)}, index=pd.date_range("2020", periods=3, freq="QE-JAN", tz="UTC")),
    "business days": pd.DataFrame({"a": range(3)}, index=pd.bdate_range("2020", periods=3)),
    "days in a zone": pd.DataFrame({"a": range(3)}, index=pd.date_range("2024-03-30", periods=3, freq="D", tz=BERLIN)),
    "category index": pd.DataFrame({"a": [1, 2]}, index=pd.CategoricalIndex(["a", "b"], name="c")),
    "period index": pd.DataFrame({"a": [1, 2]}, index=pd.period_range("2020", periods=2, freq="D")),
    "interval index": pd.DataFrame({"a": [1, 2]}, index=pd.interval_range(0, 2)),
    "boolean index": pd.DataFrame({"a": [1, 2]}, index=[True, False]),
    "masked index": pd.DataFrame({"a": [1, 2]}, index=pd.Index([1, 2], dtype="Int64")),
    "twice the same index": pd.DataFrame({"a": [1, 2]}, index=["x", "x"]),
    "twice the same column": pd.DataFrame([[1, 2.5, "a"]], columns=["a", "a", 3]),
    "columns of other types": pd.DataFrame([[1, 2]], columns=pd.Index([1.5, (1, 2)], tupleize_cols=False)),
    "columns of times": pd.DataFrame([[1, 2]], columns=pandas.to_datetime(["2020", "2021"])),
    "column None": pd.DataFrame([[1, 2]], columns=["a", None]),
    "columns of objects": pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype=object, name="cols")),
    "nothing": pd.DataFrame(),
    "no rows": pd.DataFrame(
        {
            "a": pandas.array([], dtype="Int64"),
            "c": pd.Categorical([]),
            "s": pd.Series([], dtype="str"),
            "o": pd.Series([], dtype=object),
        }
    ),
    "no columns": pd.DataFrame(index=[1, 2, 3]),
    "only names": pd.DataFrame(columns=["a", "b"]),
    "one block": pd.DataFrame(np.arange(12.0).reshape(3, 4)),
    "one block, by columns": pd.DataFrame(np.asfortranarray(np.arange(12.0).reshape(3, 4))),
    "one block of booleans": pd.DataFrame(np.eye(3, dtype=bool)),
    "scattered": pd.DataFrame(np.arange(24.0).reshape(6, 4)).iloc[::2, ::2],
    "wide": pd.DataFrame({f"c{n}": [n, n + 0.5] if n % 2 else [n, n] for n in range(150)}),
    "unique labels": pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    "attrs": with_attrs(pd.DataFrame({"a": [1, 2]})),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FRAMES)
def test_frame_comes_back_equal(name, travel):
    sent = FRAMES[name]
    got = travel(sent)
    pd.testing.assert_frame_equal(got, sent, check_freq=True, check_flags=True, check_exact=True)
    for mine, theirs in ((got.index, sent.index), (got.columns, sent.columns)):
        pd.testing.assert_index_equal(mine, theirs, exact=True)
        assert type(mine) is type(theirs)
        assert mine.dtype == theirs.dtype
        assert mine.names == theirs.names
    assert got.attrs == sent.attrs


def test_kinds_of_missing_objects_are_kept(travel):
    got = travel(pd.DataFrame({"a": pd.Series([np.nan, None, pd.NA, pd.NaT], dtype=object)}))["a"].tolist()
    assert got[0] != got[0]
    assert got[1:] == [None, pd.NA, pd.NaT] or (got[1] is None and got[2] is pd.NA and got[3] is pd.NaT)


def test_integers_under_not_a_number_are_kept(travel):
    values = np.array([0x7FF8000000000001, 0xFFF8000000000000], "u8")
    got = travel(pd.DataFrame({"a": values.view("f8"), "b": [1, 2]}))
    assert got["a"].to_numpy().view("u8").tolist() == values.tolist()


def test_zone_is_the_same_kind_of_zone(travel):
    got = travel(pd.DataFrame({"a": pd.to_datetime(["2020"]).tz_localize(BERLIN)}))
    assert type(got["a"].dt.tz) is zoneinfo.ZoneInfo
    assert got["a"].dt.tz.key == "Europe/Berlin"


@pytest.mark.parametrize("name", ["numbers", "one block", "times", "every numpy width", "one block of booleans"])
def test_received_frame_can_be_changed_in_place(name, travel):
    got = travel(FRAMES[name])
    got.iloc[1, 0] = got.iloc[0, 0]
    assert got.iloc[0, 0] == got.iloc[1, 0]


def test_numbers_are_neither_copied_for_sending_nor_for_receiving():
    column = np.arange(100_000.0)
    encoded = encode(pd.DataFrame({"a": column, "b": np.arange(100_000)}, copy=False))
    assert any(np.shares_memory(np.frombuffer(piece, "u1"), column) for piece in encoded.buffers)
    content = bytearray(b"".join(encoded.chunks()))
    got = decode(encoded.codec, encoded.head, memoryview(content))
    assert isinstance(got, pd.DataFrame)
    assert np.shares_memory(got["a"].to_numpy(copy=False), np.frombuffer(content, "u1"))


def test_block_is_not_copied():
    block = np.random.default_rng(1).random((50_000, 4))
    assert np.shares_memory(np.frombuffer(encode(pd.DataFrame(block, copy=False)).buffers[0], "u1"), block)


@pytest.mark.parametrize(
    "sent",
    [
        pd.Series([1, 2], name="x"),
        pd.Series(["a", None], name=("t", 1)),
        pd.Series([], dtype="float"),
        pd.Series([1.5, 2], index=pd.date_range("2020", periods=2, freq="D")),
        pd.Series([[1], None], name=0),
        pd.Series(pd.Categorical(["a", "b"])),
    ],
    ids=repr,
)
def test_series_comes_back_equal(sent, travel):
    got = travel(sent)
    pd.testing.assert_series_equal(got, sent, check_freq=True, check_flags=True, check_exact=True)
    assert got.name == sent.name


@pytest.mark.parametrize(
    "sent",
    [
        pd.Index([1, 2], name="x"),
        pd.RangeIndex(3),
        pd.date_range("2020", periods=3, freq="D"),
        pd.MultiIndex.from_product([[1, 2], ["a"]]),
        pd.Index([]),
        pd.Index(["a", "b"]),
        pd.Index(["a", 1, None], dtype=object),
        pd.TimedeltaIndex([]),
    ],
    ids=repr,
)
def test_index_comes_back_equal(sent, travel):
    got = travel(sent)
    pd.testing.assert_index_equal(got, sent, exact=True)
    assert type(got) is type(sent)


@pytest.mark.parametrize(
    "sent",
    [
        pd.Timestamp("2020", tz="Europe/Berlin"),
        pd.Timestamp("2020-01-01 00:00:00.000000001"),
        pd.Timedelta("1h"),
        pd.Period("2020Q1"),
        pd.Interval(1, 2, closed="both"),
    ],
    ids=repr,
)
def test_scalar_comes_back_equal(sent, travel):
    got = travel({"value": [sent]})["value"][0]
    assert type(got) is type(sent)
    assert got == sent


def test_missing_scalars_are_the_same_objects(travel):
    assert travel(pd.NA) is pd.NA
    assert travel(pd.NaT) is pd.NaT


def test_refusal_names_the_column_and_what_to_do():
    with pytest.raises(
        NotSupportedError, match=r"column model: .*builtin_function_or_method can't be sent: code can't be sent"
    ):
        encode(pd.DataFrame({"n": [1], "model": [print]}))
    frame = pd.DataFrame({"n": [1]})
    frame.attrs = {"f": print}
    with pytest.raises(NotSupportedError, match=r"attrs.*clear them"):
        encode(frame)


def test_subclass_is_refused_with_advice():
    class Geo(pd.DataFrame):
        pass

    with pytest.raises(NotSupportedError, match=r"pandas\.DataFrame\(value\)"):
        encode(Geo({"a": [1]}))


def test_truth_values_other_than_two_are_refused():
    encoded = encode(pd.DataFrame({"a": np.array([True, False] * 20_000), "b": range(40_000)}))
    content = bytearray(b"".join(encoded.chunks()))
    content[content.index(b"\x01\x00\x01\x00" * 8)] = 7
    with pytest.raises(CorruptDataError, match="neither true nor false"):
        decode(encoded.codec, encoded.head, memoryview(content))
